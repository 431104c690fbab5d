// Rows into clusters: k-means (Lloyd, 1957/1982), seeded as k-means++ (Arthur and Vassilvitskii,
// SODA 2007), trained on a sample, with a bound on how long a cluster may become.
//
// Everything that compares rows with centroids is a matrix product. k-means++ as written draws one
// centroid at a time, which would be a pass over the rows for each; here a batch is drawn from one
// set of distances, and a draw is kept with the probability that its distance to the others of its
// batch leaves it, which makes it a draw from the true distribution (rejection sampling).
//
// The result follows from rows, parameters and instruction set, never from threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace aionbd {

struct KMeansParameters {
  uint32_t clusters = 1;  // wanted
  /// A cluster of more rows than this many times n / clusters is split until none is; at least 1.
  double longest_share = 2;
  uint64_t seed = 1;
  /// float[m x columns], finite: centroids of much the same rows, to start from instead of seeds
  /// drawn from the rows; and how many rows each stands for. Where there are enough, seeds are
  /// drawn from them and training is shorter; else the others are drawn from the rows.
  std::span<const float> start = {};
  std::span<const uint32_t> start_rows = {};
};

/// Which rows belong together. Thread safety: single owner.
struct Clusters {
  size_t columns = 0;
  std::vector<float> centroids;   // float[count x columns]: means of the members
  std::vector<uint32_t> offsets;  // uint32_t[count + 1] into `members`
  std::vector<uint32_t> members;  // each row once, ascending within a cluster

  size_t count() const { return offsets.size() - 1; }
  std::span<const uint32_t> members_of(size_t cluster) const {
    return {members.data() + offsets[cluster], offsets[cluster + 1] - offsets[cluster]};
  }
};

/// rows: float[n x columns], finite, lengths below 1e18; n below 2^32, may be 0; columns and
/// parameters.clusters: at least 1. No cluster is empty. There are fewer than wanted where rows are
/// equal (nearer to each other than about 1/300 of their length), more where long ones were split.
/// Rows near the origin are told apart best, so centred data is clustered best.
/// Cost: about (n + 5 x min(n, 64 x clusters)) x clusters x columns multiply-adds; memory: a copy
/// of min(n, 64 x clusters) rows.
Clusters cluster_rows(const float* rows, size_t n, size_t columns,
                      const KMeansParameters& parameters, ThreadPool* pool);

}  // namespace aionbd
