// An inverted file: rows in lists around centroids, of which a query scans the nearest few.
//
// Lists are k-means clusters (Jégou et al., "Product Quantization for Nearest Neighbor Search",
// TPAMI 2011, for the structure) of the projected rows. Each list has its rows' 4-bit codes side by
// side, so that scanning it is one stream through memory at two multiply-adds a line; the codes are
// those of the segment, copied in list order.
//
// Where it pays (see kBitsWorth in ivf.cc), a list also has its rows' 1-bit codes relative to
// its centroid (bit_codec.h): once `keep` rows are found, these are scanned instead, and the 4-bit
// code is read only of rows whose lower estimate is within what is still wanted.
//
// Ranking a thousand centroids by floats would cost more than scanning the lists chosen, so they
// are ranked by 4-bit codes of their own; only the chosen ones are compared exactly, for the bound
// that skips a list: no member is nearer than |q - centroid| - radius.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aionbd/status.h"
#include "base/thread_pool.h"
#include "index/graph.h"
#include "quant/bit_codec.h"
#include "quant/plane_codec.h"

namespace aionbd {

/// Whether lists have 1-bit codes.
enum class FirstLook { kWherePaying, kAlways, kNever };

struct IvfParameters {
  uint32_t lists = 0;  // 0: default_ivf_lists of the rows
  uint64_t seed = 1;
  FirstLook first_look = FirstLook::kWherePaying;
  /// As in KMeansParameters.
  std::span<const float> start = {};
  std::span<const uint32_t> start_rows = {};
};

/// About 2 sqrt(rows), but no fewer than 64 rows a list.
uint32_t default_ivf_lists(uint32_t rows);

/// No list has more than this many times rows / lists members.
inline constexpr double kIvfLongestShare = 2;

/// Lists where they lie. Thread safety: immutable.
struct IvfView {
  std::span<const float> centroids;        // float[lists x coordinates]
  std::span<const uint8_t> centroid_high;  // uint8_t[lists x high_stride], 64-byte aligned
  std::span<const float> radii;            // float[lists]: no member is farther from the centroid
  std::span<const uint32_t> offsets;       // uint32_t[lists + 1] into members
  std::span<const uint32_t> members;       // rows, list by list
  std::span<const uint8_t> high;           // uint8_t[members x high_stride], 64-byte aligned
  std::span<const uint8_t> bits;           // empty, or bit blocks, 64-byte aligned

  size_t lists() const { return radii.size(); }
  /// Blocks of 1-bit codes: each list's begin at one of its own. The formula leaves a block unused
  /// here and there, and needs no second table of offsets.
  size_t bit_blocks() const { return members.size() / kBitRows + lists(); }
  size_t first_bit_block(size_t list) const { return offsets[list] / kBitRows + list; }

  /// Whether search_ivf stays inside the arrays and answers with rows below `rows`, each at most
  /// once, whatever they hold. Errors: corruption. Cost: one pass over all but the codes.
  static Status check(const IvfView& view, const PlaneLayout& layout, uint32_t rows);
};

/// Thread safety: single owner.
struct BuiltIvf {
  std::vector<float> centroids;
  AlignedFloats centroid_high;  // as bytes
  std::vector<float> radii;
  std::vector<uint32_t> offsets;
  std::vector<uint32_t> members;
  AlignedFloats high;  // as bytes
  AlignedFloats bits;  // as bytes; empty where 1-bit codes do not pay
  /// Share of the rows scanned whose 4-bit code a search need not read, given 1-bit codes.
  float dismissed = 0;

  IvfView view() const;
};

/// y: float[ids.size() x coordinates], projected, of the rows `ids`, which are the ones to be in
/// lists; high: the high plane of the codes of all rows, by row. Lengths of y below 1e18.
/// Deterministic by seed, independent of threads. Memory: besides the result, as cluster_rows.
/// Cost: about 5 x ids.size() x lists x coordinates multiply-adds.
BuiltIvf build_ivf(const float* y, std::span<const uint32_t> ids, const uint8_t* high,
                   const PlaneLayout& layout, const IvfParameters& parameters, ThreadPool* pool);

/// Reads lists from the file they are in, where reading them in place would make them resident.
/// Thread safety: safe.
class ListReader {
 public:
  virtual ~ListReader() = default;
  /// Copies entries [first, first + n) of IvfView::members and ::high. Errors: corruption,
  /// io_error.
  virtual Status read(size_t first, size_t n, uint32_t* members, uint8_t* high) const = 0;
};

/// What a search needs besides the lists; reused from search to search. Thread safety: single
/// owner.
class IvfScratch {
 public:
  /// Best first, valid until the next search.
  std::span<const GraphCandidate> found() const { return found_; }
  /// Rows and centroids whose distance the last search estimated.
  size_t looks() const { return looks_; }
  /// Rows among them of which the 4-bit code was read.
  size_t second_looks() const { return second_looks_; }
  /// Lists it scanned: the others among nprobe could not hold a nearer row.
  size_t scanned_lists() const { return scanned_lists_; }
  /// Why the last search has no result; ok unless a ListReader failed.
  const Status& status() const { return status_; }

 private:
  friend class IvfSearch;
  /// One list, copied.
  struct Copy {
    std::vector<uint32_t> members;
    AlignedFloats high;  // as bytes
  };
  std::vector<GraphCandidate> lists_;
  std::vector<GraphCandidate> found_;
  size_t looks_ = 0;
  size_t second_looks_ = 0;
  size_t scanned_lists_ = 0;
  Copy copy_;
  Status status_;
};

/// The `keep` rows that look nearest among those of the nprobe nearest lists, into
/// scratch->found(). y: float[coordinates], the projected query that `query` was made of.
/// With a reader, members and codes are read through it and never in place, and 1-bit codes are not
/// used.
/// REQUIRES: nprobe, keep >= 1; a view that `check` accepts.
void search_ivf(const IvfView& ivf, const PlaneQuery& query, const float* y,
                const PlaneLayout& layout, size_t nprobe, size_t keep, IvfScratch* scratch,
                const ListReader* reader = nullptr);

}  // namespace aionbd
