// What a benchmark file (layout of ann-benchmarks) holds beside its rows, and the true nearest rows
// of its queries: those the file names, or found here by brute force when the question is another
// than the file's (a filter, fewer rows, another metric).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"

namespace aionbd {

/// A dense matrix of f32, row after row.
struct FloatRows {
  uint64_t rows = 0;
  uint32_t dimension = 0;
  std::vector<float> values;

  std::span<const float> row(uint64_t i) const {
    return std::span(values).subspan(static_cast<size_t>(i) * dimension, dimension);
  }
};

/// The first `rows_max` rows of a data set, whole in memory. Errors: those of open_hdf5.
Result<FloatRows> read_rows(const std::string& path, const std::string& dataset, uint64_t rows_max);

/// Called for consecutive pieces of a data set: number of the first row, and the rows.
using RowsVisit = std::function<Status(uint64_t first, const FloatRows& piece)>;
/// The first `rows_max` rows in pieces of at most `piece_rows`; stops at the first error.
Status visit_rows(const std::string& path, const std::string& dataset, uint64_t rows_max,
                  size_t piece_rows, const RowsVisit& visit);

/// How far apart two vectors are, smaller is closer, in double precision: the distance for l2,
/// 1 - cosine for cosine, the negative product for dot. A zero vector has cosine 0 with all.
double true_distance(Metric metric, std::span<const float> a, std::span<const float> b);

/// The true nearest rows of each query, nearest first; fewer than asked where fewer match.
using Truth = std::vector<std::vector<uint64_t>>;

/// What the data set `neighbors` says, cut to `k`. Errors: corruption for a row number that is not
/// below `rows`; invalid_argument when it has fewer than `queries` lists or `k` entries a list.
Result<Truth> read_truth(const std::string& path, uint64_t queries, uint32_t k, uint64_t rows);

struct TruthQuestion {
  std::string path;
  std::string dataset = "train";
  uint64_t rows = 0;  // the first so many
  Metric metric = Metric::kL2;
  uint32_t k = 10;
  const FloatRows* queries = nullptr;
  /// True for rows that may be an answer; empty: all may.
  std::function<bool(uint64_t row)> matches;
};
/// By brute force in double precision, ties by row number, on all cores.
/// Cost: rows x queries x dimension multiplications; reads the file once.
Result<Truth> compute_truth(const TruthQuestion& question);

/// Distances of rows to one query, in the order asked.
using DistancesOf = std::function<Result<std::vector<double>>(const std::vector<uint64_t>& rows)>;
/// Share of the true neighbours that `answer` has, 0..1. An answer that is none of them counts all
/// the same when it is as near as the farthest of them, up to `tolerance` of that distance; a
/// repeated one counts once. Nothing to find: 1 when nothing was answered. Calls `distances_of`
/// only for answers that `truth` does not name.
Result<double> recall_of(const std::vector<uint64_t>& answer, const std::vector<uint64_t>& truth,
                         double tolerance, const DistancesOf& distances_of);

}  // namespace aionbd
