// The table of metrics, and distances as the engine uses them: smaller is closer, always.
//
//   dot     -(q . x)                   score = -distance
//   l2      squared Euclidean          score = sqrt(distance)
//   cosine  -(q . x) / (|q| |x|)       score = -distance
//
// A distance that is not finite (overflow, or infinities in a non-strict collection), and cosine
// against a zero row, is kFarthest, which ranks last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "distance/row_values.h"

namespace aionbd {

struct Kernels;  // kernels.h

inline constexpr float kFarthest = std::numeric_limits<float>::infinity();

struct MetricInfo {
  Metric metric;
  std::string_view name;  // on the wire
  bool higher_is_better;  // the score
};

/// In the order of the enumerators.
std::span<const MetricInfo> metric_table();
const MetricInfo& metric_info(Metric metric);
std::optional<Metric> metric_by_name(std::string_view name);

/// The engine's distance as the user's score. kFarthest becomes a non-finite score.
float score_of(Metric metric, float distance);
/// The largest distance whose score still satisfies the user's threshold; -infinity when none does.
float distance_of_threshold(Metric metric, float score);

/// In double: exact but for n + 8 roundings of it; the same bits on every CPU.
double sum_of_squares(const float* values, size_t n);
/// The same, as stored beside each row: rounded to a float once. Infinite when it exceeds one.
float norm_squared(const float* row, size_t dim);

/// Floats on a cache line of their own. Line: 64 bytes, one AVX-512 vector.
struct alignas(64) FloatLine {
  float values[16] = {};
};
using AlignedFloats = std::vector<FloatLine>;

/// One query, ready to be compared with many rows. The distance of a row depends on the query, the
/// row and the instruction set alone: not on n, nor on the row's place among the n. Cosine is right
/// for rows of any finite size, also where norm_squared over- or underflows.
/// Thread safety: immutable.
class PreparedQuery {
 public:
  /// Errors: invalid_argument for a zero query under cosine ("query must not be a zero vector for
  /// the cosine metric").
  static Result<PreparedQuery> make(Metric metric, std::span<const float> query);
  /// With given kernels: for tests and benchmarks.
  static Result<PreparedQuery> make(Metric metric, std::span<const float> query,
                                    const Kernels& kernels);

  /// out[i] = distance to row i. rows: [n x dim]; norms_squared: float[n] of norm_squared(),
  /// used by cosine only, which may be null otherwise.
  /// One pass over `rows`, prefetching ahead; memory-bound from 64 dimensions up, if floats.
  void distances(const RowValues& rows, const float* norms_squared, size_t n, float* out) const;

  Metric metric() const { return metric_; }
  size_t dim() const { return dim_; }

 private:
  PreparedQuery(Metric metric, std::span<const float> query, double norm, const Kernels& kernels);
  void dot(const RowValues& rows, size_t n, float* out) const;
  void l2_squared(const RowValues& rows, size_t n, float* out) const;
  /// Of a row whose squared norm is no normal float.
  float cosine_of_unusual(const RowValues& row) const;

  Metric metric_;
  size_t dim_;
  const Kernels* kernels_;
  AlignedFloats query_;  // under cosine divided by its norm
};

/// Many queries against blocks of rows: a matrix product, arithmetic-bound. Its distances are
/// approximate in the last bits (another order of additions than PreparedQuery) with a stated
/// bound, so that a caller can collect candidates here and rank them by PreparedQuery: every row
/// with PreparedQuery distance <= t has a distance here <= t + error_bound (in float).
/// Memory: about 4 bytes per query and dimension. Thread safety: immutable.
class PreparedBatch {
 public:
  /// Errors: invalid_argument for no query, queries of different lengths, or a zero query under
  /// cosine.
  static Result<PreparedBatch> make(Metric metric, std::span<const std::span<const float>> queries);
  /// With given kernels: for tests and benchmarks.
  static Result<PreparedBatch> make(Metric metric, std::span<const std::span<const float>> queries,
                                    const Kernels& kernels);
  PreparedBatch(PreparedBatch&&) noexcept;
  PreparedBatch& operator=(PreparedBatch&&) noexcept;
  ~PreparedBatch();

  size_t queries_count() const;
  /// Columns of `out`: queries_count rounded up to whole vectors.
  size_t stride() const;
  /// Best number of rows per call (fits the caches).
  static constexpr size_t kRowsBlock = 64;

  /// out[i * stride() + q] = distance of row i to query q; columns beyond queries_count hold
  /// anything. norms_squared: float[n]. REQUIRES: n <= kRowsBlock.
  void distances(const float* rows, const float* norms_squared, size_t n, float* out) const;
  /// |distances(...) - PreparedQuery::distances(...)| <= this, for rows with norm_squared up to
  /// `row_norm_squared_max`, and room for the one rounding of `threshold + error_bound`. Infinite
  /// when a norm is not finite or so large that a sum could overflow: use PreparedQuery then.
  float error_bound(size_t query, float row_norm_squared_max) const;

 private:
  struct Packed;
  explicit PreparedBatch(std::unique_ptr<Packed> packed);
  std::unique_ptr<Packed> packed_;
};

/// Writes to `indexes` each i with values[i] <= thresholds[i], ascending; returns how many.
/// indexes: uint32_t[n].
size_t select_at_most(const float* values, const float* thresholds, size_t n, uint32_t* indexes);
/// The same against one threshold.
size_t select_at_most(const float* values, float threshold, size_t n, uint32_t* indexes);

/// Name of the instruction set in use: "avx512", "avx2", "sse4", "neon", "scalar", ...
std::string_view simd_target_name();
/// Those this CPU can run, the best first, scalar last.
std::vector<std::string_view> simd_target_names();

}  // namespace aionbd
