// A proximity graph over the rows of one segment: candidates of a query in a few hundred looks.
//
// One flat graph of bounded degree with long and short edges (Vamana: Subramanya et al., "DiskANN",
// NeurIPS 2019), built in batches (ParlayANN: Manohar et al., PPoPP 2024): the rows of a batch
// search the graph of all batches before them, in parallel, choose their neighbours, and the edges
// back are merged row by row. So the result depends on data and seed, never on threads.
//
// Departures: building finds candidates by the 4-bit codes that searches use, and chooses among
// them by 8-bit codes of the projected rows; the walk starts from the nearest of a few sampled
// entry rows instead of one medoid, which saves the hops that upper layers (HNSW) are for.
//
// Rows whose codes are equal are one place of the graph: no distance tells them apart, so pruning
// would leave one of them with edges and the others unreachable. The first one is linked as any row
// is; its copies get its neighbours, and all of them are linked in a ring with chords.
//
// A walk (beam search) keeps the `ef` best rows seen in one sorted array, expands the best not yet
// expanded, and ends when all are. Each expansion is one read of a row of edges and one call of the
// scorer for all neighbours not met before, whose codes are prefetched while the edges are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "quant/byte_codec.h"
#include "quant/plane_codec.h"

namespace aionbd {

/// No neighbour: ends a short list of neighbours.
inline constexpr uint32_t kNoNeighbour = UINT32_MAX;

struct GraphParameters {
  uint32_t degree = 32;        // neighbours per row, at most
  uint32_t build_width = 100;  // rows kept by the searches that choose neighbours
  float alpha = 1.2F;          // on squared distances: above 1 keeps longer edges
  uint64_t seed = 1;
};

/// A graph where it lies. Thread safety: immutable.
struct GraphView {
  const uint32_t* neighbours = nullptr;  // uint32_t[rows x degree], kNoNeighbour behind the last
  uint32_t rows = 0;
  uint32_t degree = 0;
  std::span<const uint32_t> entries;

  const uint32_t* of(uint32_t row) const { return neighbours + size_t{row} * degree; }
};

struct BuiltGraph {
  uint32_t degree = 0;
  std::vector<uint32_t> neighbours;
  std::vector<uint32_t> entries;

  GraphView view() const {
    return {neighbours.data(), static_cast<uint32_t>(neighbours.size() / degree), degree, entries};
  }
};

/// Rows met and kept by a walk.
struct GraphCandidate {
  float distance;  // estimated, squared
  uint32_t row;
};

/// The rows a walk may find. Thread safety: immutable.
struct AllowedRows {
  const uint64_t* words = nullptr;  // bit row % 64 of words[row / 64]; null: all rows
  bool look_at_all = false;         // estimate every allowed row instead of walking

  bool contains(uint32_t row) const { return (words[row / 64] >> (row % 64) & 1) != 0; }
};

/// What a walk needs besides the graph; reused from walk to walk. Thread safety: single owner.
class GraphScratch {
 public:
  /// From the next walk on only these rows are found: the bits must outlive the walks, and there
  /// must be one for each row of the graph.
  ///
  /// Such a walk keeps and expands allowed rows only. Where few neighbours of a row are allowed, it
  /// reads on through those that are not, so that a row has about as many neighbours as ever (the
  /// idea is ACORN's: Patel et al., SIGMOD 2024). It starts from a sample of the allowed rows.
  void allow(const AllowedRows& rows) { allowed_ = rows; }
  const AllowedRows& allowed() const { return allowed_; }
  /// Best first, valid until the next walk.
  std::span<const GraphCandidate> found() const { return {pool_.data(), pool_count_}; }
  /// Rows whose distance the last walk estimated.
  size_t looks() const { return looks_; }
  /// Takes over what another kind of search found.
  void assign(std::span<const GraphCandidate> found, size_t looks) {
    pool_.assign(found.begin(), found.end());
    pool_count_ = found.size();
    looks_ = looks;
  }

 private:
  friend class GraphWalk;
  std::vector<uint64_t> visited_;
  std::vector<uint32_t> touched_;
  std::vector<GraphCandidate> pool_;
  size_t pool_count_ = 0;
  AllowedRows allowed_;
  size_t looks_ = 0;
};

/// Where the rows themselves lie: a walk asks for those it will likely end with, so that they
/// arrive while it goes on. It reads none.
struct RowsAhead {
  const std::byte* values = nullptr;  // null: nowhere
  size_t row_bytes = 0;
};

/// The ef rows that look nearest to the query, into scratch->found(). `high`: the high plane of the
/// rows' codes. REQUIRES: ef >= 1.
void search_graph(const GraphView& graph, const PlaneQuery& query, const PlaneLayout& layout,
                  const uint8_t* high, size_t ef, GraphScratch* scratch,
                  const RowsAhead& ahead = {});

/// Builds a graph over some of the rows of `codes`. Thread safety: single owner; the pool's threads
/// work inside its calls.
class GraphBuild {
 public:
  /// codes and high, the high plane of the same rows' 4-bit codes, must outlive it.
  GraphBuild(const ByteCodes& codes, const PlaneLayout& layout, const uint8_t* high, uint32_t rows,
             const GraphParameters& parameters, ThreadPool* pool);
  ~GraphBuild();
  GraphBuild(const GraphBuild&) = delete;
  GraphBuild& operator=(const GraphBuild&) = delete;

  /// Adds rows, best in random order; none may be added twice. False when cancelled, which leaves
  /// nothing to finish. Cost: about build_width x degree distances a row.
  bool add(std::span<const uint32_t> rows, const std::function<bool()>& cancelled);
  /// The graph as it is now. REQUIRES: at least one row was added.
  BuiltGraph finish();

 private:
  class Builder;
  std::unique_ptr<Builder> builder_;
};

}  // namespace aionbd
