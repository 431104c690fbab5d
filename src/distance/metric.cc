// The table of metrics; queries made ready for the kernels; and how far the batch's distances can
// be from the single query's.
//
// Error analysis, after Higham, "Accuracy and Stability of Numerical Algorithms" (2nd ed., SIAM
// 2002), sections 2.2, 3.1 and 4.2. u = 2^-24; gamma(k) = k u / (1 - k u); every factor (1 + delta)
// has |delta| <= u; a product of k such factors or their inverses is 1 + theta, |theta| <=
// gamma(k). Q = |q|, X = |x|. If no sum overflows:
//
//   (1) A sum of products in which each term passes at most m roundings, in whatever order, is off
//       by at most gamma(m) sum|q_k x_k| <= gamma(m) Q X (Cauchy-Schwarz). A fused multiply-add is
//       one rounding; without it, the product's rounding takes the place of the first addition (to
//       zero, which is exact). m is Kernels::sum_depth or batch_depth.
//   (2) Underflow. An addition that underflows is exact; a product or fused multiply-add adds at
//   most
//       2^-150 each (Higham (2.8)), so at most dim x 2^-150, times a factor below 2 for later
//       roundings.
//   (3) norm_squared is a double sum rounded once to float: (1 + delta) with |delta| <= 1.001 u,
//   for
//       dim <= 65536, and 2^-150 where it underflows.
//
// dot, single and batch: (1) with the two depths; negation is exact and the batch's last step,
// sum x 1 + 0, is exact too.
//
// l2, single: (x_k - q_k)^2 has two more roundings by the difference: off by at most
// gamma(m + 2) d, with d <= (Q + X)^2.
// l2, batch: the queries are packed as -2q (exact), so the sum is off by 2 gamma(m) Q X; the two
// norms have one rounding each (3), their addition one, the last addition one over everything:
// |error| <= 2 gamma(m) Q X (1 + u) + 3.01 u (Q^2 + X^2) + 2.01 u Q X. Clamping at 0, which is on
// the right side of every true distance, only brings it nearer.
//
// cosine: both use the same rounded query w ~ q / Q with |w| <= 1 + 1.01 u, so only the sums and
// the last steps differ. With r = sqrt(norm_squared) (relative error of r against X: 1.6 u), single
// is sum / r (one rounding) and batch is sum x (1 / r) (two). Difference at most
// ((gamma(m1) + gamma(m2)) (1 + 6 u) + 4 u) + underflow / r. Rows whose norm_squared is not a
// normal float go the same exact way in both (`cosine_in_double`), so r >= 2^-63. Clamping both to
// [-1, 1] never takes two values further apart.
#include "distance/metric.h"

#include <array>
#include <cmath>

#include "base/check.h"
#include "distance/kernels.h"

namespace aionbd {
namespace {

constexpr std::array<MetricInfo, kMetricsCount> kMetrics = {{
    {Metric::kDot, "dot", true},
    {Metric::kL2, "l2", false},
    {Metric::kCosine, "cosine", true},
}};

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kSmallestNormal = std::numeric_limits<float>::min();
constexpr size_t kFloatsPerLine = sizeof(FloatLine) / sizeof(float);

float* floats_of(AlignedFloats& lines) {
  return lines.data()->values;
}
const float* floats_of(const AlignedFloats& lines) {
  return lines.data()->values;
}

AlignedFloats make_floats(size_t count) {
  return AlignedFloats((count + kFloatsPerLine - 1) / kFloatsPerLine);
}

float finite_or_farthest(float distance) {
  return std::abs(distance) <= kLargest ? distance : kFarthest;
}

// Products of two floats are exact in double, so the value does not depend on whether the compiler
// fuses them with the addition: the same bits on every CPU. Four sums for speed.
float round_to_float(double value) {
  // Out of range is undefined in the language, and infinity is what we want.
  if (value > static_cast<double>(kLargest)) return kFarthest;
  return static_cast<float>(value);
}

// The cosine distance of a row whose norm_squared is zero, denormal or not finite as a float.
// `query` is divided by its norm; its elements are `stride` apart, `sign` times the value.
float cosine_in_double(const float* query, size_t stride, double sign, const float* row,
                       size_t dim) {
  const double norm = std::sqrt(sum_of_squares(row, dim));
  if (!(norm > 0) || !std::isfinite(norm)) return kFarthest;
  double sum = 0;
  for (size_t k = 0; k < dim; ++k) {
    sum += static_cast<double>(query[k * stride]) * static_cast<double>(row[k]);
  }
  const double distance = -sign * sum / norm;
  if (!std::isfinite(distance)) return kFarthest;
  return static_cast<float>(std::fmin(std::fmax(distance, -1.0), 1.0));
}

bool is_normal_norm(float norm_squared) {
  return norm_squared >= kSmallestNormal && norm_squared <= kLargest;
}

Status check_query(Metric metric, double norm_squared) {
  if (metric == Metric::kCosine && norm_squared == 0) {
    return invalid_argument("query must not be a zero vector for the cosine metric");
  }
  return Status();
}

// What the kernels see of a query under a metric; `norm` is Euclidean.
float prepared_element(Metric metric, float value, double norm) {
  if (metric != Metric::kCosine) return value;
  return round_to_float(static_cast<double>(value) / norm);
}

}  // namespace

std::span<const MetricInfo> metric_table() {
  return kMetrics;
}

const MetricInfo& metric_info(Metric metric) {
  CHECK_LT(static_cast<size_t>(metric), kMetrics.size());
  return kMetrics[static_cast<size_t>(metric)];
}

std::optional<Metric> metric_by_name(std::string_view name) {
  for (const MetricInfo& info : kMetrics) {
    if (info.name == name) return info.metric;
  }
  return std::nullopt;
}

float score_of(Metric metric, float distance) {
  // 0 - x rather than -x: no negative zero in answers.
  return metric == Metric::kL2 ? std::sqrt(distance) : 0.0F - distance;
}

float distance_of_threshold(Metric metric, float score) {
  if (std::isnan(score)) return -kFarthest;
  if (metric != Metric::kL2) return 0.0F - score;
  if (score < 0) return -kFarthest;
  if (std::isinf(score)) return kFarthest;
  // Several neighbouring distances have the same square root; start at the square and walk to the
  // last one, at most a few steps.
  float distance = static_cast<float>(
      std::fmin(static_cast<double>(score) * score, static_cast<double>(kLargest)));
  while (std::sqrt(distance) > score) distance = std::nextafter(distance, 0.0F);
  while (distance < kLargest && std::sqrt(std::nextafter(distance, kLargest)) <= score) {
    distance = std::nextafter(distance, kLargest);
  }
  return distance;
}

double sum_of_squares(const float* values, size_t n) {
  constexpr size_t kSums = 8;
  double sums[kSums] = {};
  size_t k = 0;
  for (; k + kSums <= n; k += kSums) {
    for (size_t s = 0; s < kSums; ++s) {
      sums[s] += static_cast<double>(values[k + s]) * static_cast<double>(values[k + s]);
    }
  }
  for (; k < n; ++k) sums[0] += static_cast<double>(values[k]) * static_cast<double>(values[k]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

float norm_squared(const float* row, size_t dim) {
  return round_to_float(sum_of_squares(row, dim));
}

std::string_view simd_target_name() {
  return kernels().name;
}

std::vector<std::string_view> simd_target_names() {
  std::vector<std::string_view> names;
  for (const Kernels* each : supported_kernels()) names.push_back(each->name);
  return names;
}

size_t select_at_most(const float* values, const float* thresholds, size_t n, uint32_t* indexes) {
  return kernels().select_each(values, thresholds, n, indexes);
}

size_t select_at_most(const float* values, float threshold, size_t n, uint32_t* indexes) {
  return kernels().select_one(values, threshold, n, indexes);
}

// ---- PreparedQuery -----------------------------------------------------------------------------

Result<PreparedQuery> PreparedQuery::make(Metric metric, std::span<const float> query) {
  return make(metric, query, aionbd::kernels());
}

Result<PreparedQuery> PreparedQuery::make(Metric metric, std::span<const float> query,
                                          const Kernels& kernels) {
  const double norm_squared = sum_of_squares(query.data(), query.size());
  RETURN_IF_ERROR(check_query(metric, norm_squared));
  return PreparedQuery(metric, query, std::sqrt(norm_squared), kernels);
}

PreparedQuery::PreparedQuery(Metric metric, std::span<const float> query, double norm,
                             const Kernels& kernels)
    : metric_(metric),
      dim_(query.size()),
      kernels_(&kernels),
      query_(make_floats(query.size() + 1)) {
  float* values = floats_of(query_);
  for (size_t k = 0; k < dim_; ++k) values[k] = prepared_element(metric, query[k], norm);
}

void PreparedQuery::dot(const RowValues& rows, size_t n, float* out) const {
  const float* query = floats_of(query_);
  if (rows.bytes == nullptr) {
    kernels_->dot(query, rows.floats, dim_, n, out);
  } else {
    kernels_->dot_bytes(query, rows.bytes, rows.base, dim_, n, out);
  }
}

void PreparedQuery::l2_squared(const RowValues& rows, size_t n, float* out) const {
  const float* query = floats_of(query_);
  if (rows.bytes == nullptr) {
    kernels_->l2_squared(query, rows.floats, dim_, n, out);
  } else {
    kernels_->l2_squared_bytes(query, rows.bytes, rows.base, dim_, n, out);
  }
}

float PreparedQuery::cosine_of_unusual(const RowValues& row) const {
  if (row.bytes == nullptr) return cosine_in_double(floats_of(query_), 1, 1.0, row.floats, dim_);
  std::vector<float> values(dim_);
  row.copy(dim_, values.data());
  return cosine_in_double(floats_of(query_), 1, 1.0, values.data(), dim_);
}

void PreparedQuery::distances(const RowValues& rows, const float* norms_squared, size_t n,
                              float* out) const {
  switch (metric_) {
    case Metric::kDot:
      dot(rows, n, out);
      for (size_t i = 0; i < n; ++i) out[i] = finite_or_farthest(0.0F - out[i]);
      return;
    case Metric::kL2:
      l2_squared(rows, n, out);
      for (size_t i = 0; i < n; ++i) out[i] = finite_or_farthest(out[i]);
      return;
    case Metric::kCosine:
      dot(rows, n, out);
      for (size_t i = 0; i < n; ++i) {
        if (is_normal_norm(norms_squared[i])) [[likely]] {
          const float cosine = out[i] / std::sqrt(norms_squared[i]);
          out[i] =
              std::isfinite(cosine) ? std::fmin(std::fmax(0.0F - cosine, -1.0F), 1.0F) : kFarthest;
        } else {
          out[i] = cosine_of_unusual(rows.from(i * dim_));
        }
      }
      return;
  }
}

// ---- PreparedBatch -----------------------------------------------------------------------------

struct PreparedBatch::Packed {
  Metric metric = Metric::kDot;
  size_t dim = 0;
  size_t count = 0;
  size_t columns = 0;
  const Kernels* kernels = nullptr;
  AlignedFloats panels;       // see BatchArguments; times -1 (dot, cosine) or -2 (l2)
  AlignedFloats column_add;   // squared norms under l2, else zeros
  std::vector<double> norms;  // Euclidean, of the given queries

  // The first element of a column, and the distance to the next one.
  size_t column_begin(size_t column, size_t* step) const {
    const size_t panel = column / kernels->panel_columns * kernels->panel_columns;
    *step = std::min(kernels->panel_columns, columns - panel);
    return panel * dim + (column - panel);
  }
  void add(size_t column, std::span<const float> query);
};

void PreparedBatch::Packed::add(size_t column, std::span<const float> query) {
  const double squared = sum_of_squares(query.data(), dim);
  norms[column] = std::sqrt(squared);
  if (metric == Metric::kL2) floats_of(column_add)[column] = round_to_float(squared);
  const float factor = metric == Metric::kL2 ? -2.0F : -1.0F;
  size_t step = 0;
  float* element = floats_of(panels) + column_begin(column, &step);
  for (size_t k = 0; k < dim; ++k) {
    element[k * step] = factor * prepared_element(metric, query[k], norms[column]);
  }
}

PreparedBatch::PreparedBatch(std::unique_ptr<Packed> packed) : packed_(std::move(packed)) {}
PreparedBatch::PreparedBatch(PreparedBatch&&) noexcept = default;
PreparedBatch& PreparedBatch::operator=(PreparedBatch&&) noexcept = default;
PreparedBatch::~PreparedBatch() = default;

Result<PreparedBatch> PreparedBatch::make(Metric metric,
                                          std::span<const std::span<const float>> queries) {
  return make(metric, queries, aionbd::kernels());
}

Result<PreparedBatch> PreparedBatch::make(Metric metric,
                                          std::span<const std::span<const float>> queries,
                                          const Kernels& kernels) {
  if (queries.empty()) return invalid_argument("a batch needs at least one query");
  auto packed = std::make_unique<Packed>();
  packed->metric = metric;
  packed->dim = queries[0].size();
  packed->count = queries.size();
  packed->columns = (queries.size() + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
  packed->kernels = &kernels;
  packed->panels = make_floats(packed->columns * packed->dim + 1);
  packed->column_add = make_floats(packed->columns);
  packed->norms.resize(packed->count);
  for (size_t q = 0; q < queries.size(); ++q) {
    if (queries[q].size() != packed->dim) {
      return invalid_argument("queries of one batch differ in dimension: got " +
                              std::to_string(queries[q].size()) + ", want " +
                              std::to_string(packed->dim));
    }
    packed->add(q, queries[q]);
    RETURN_IF_ERROR(check_query(metric, packed->norms[q]));
  }
  return PreparedBatch(std::move(packed));
}

size_t PreparedBatch::queries_count() const {
  return packed_->count;
}
size_t PreparedBatch::stride() const {
  return packed_->columns;
}

void PreparedBatch::distances(const float* rows, const float* norms_squared, size_t n,
                              float* out) const {
  DCHECK_LE(n, kRowsBlock);
  const Packed& p = *packed_;
  float row_scale[kRowsBlock];
  float row_add[kRowsBlock];
  for (size_t i = 0; i < n; ++i) {
    row_scale[i] = 1;
    row_add[i] = 0;
    if (p.metric == Metric::kL2) row_add[i] = norms_squared[i];
    if (p.metric == Metric::kCosine) {
      row_scale[i] = is_normal_norm(norms_squared[i]) ? 1 / std::sqrt(norms_squared[i]) : 0;
    }
  }
  BatchArguments a;
  a.rows = rows;
  a.n = n;
  a.dim = p.dim;
  a.packed = floats_of(p.panels);
  a.columns = p.columns;
  a.column_add = floats_of(p.column_add);
  a.row_scale = row_scale;
  a.row_add = row_add;
  a.lowest = p.metric == Metric::kDot ? -kLargest : p.metric == Metric::kL2 ? 0.0F : -1.0F;
  a.highest = p.metric == Metric::kCosine ? 1.0F : kLargest;
  a.out = out;
  p.kernels->batch(a);
  if (p.metric != Metric::kCosine) return;
  for (size_t i = 0; i < n; ++i) {
    if (is_normal_norm(norms_squared[i])) [[likely]]
      continue;
    for (size_t q = 0; q < p.count; ++q) {
      size_t step = 0;
      const float* column = floats_of(p.panels) + p.column_begin(q, &step);
      out[i * p.columns + q] = cosine_in_double(column, step, -1.0, rows + i * p.dim, p.dim);
    }
  }
}

float PreparedBatch::error_bound(size_t query, float row_norm_squared_max) const {
  const Packed& p = *packed_;
  DCHECK_LT(query, p.count);
  constexpr double u = 0x1p-24;
  const auto gamma = [](size_t depth) {
    const double ku = static_cast<double>(depth) * u;
    return ku / (1 - ku);
  };
  const size_t single_depth = p.kernels->sum_depth(p.dim);
  const double single = gamma(single_depth);
  const double batch = gamma(batch_depth(p.dim));
  const double underflow = static_cast<double>(p.dim + 16) * 0x1p-148;
  const double q = p.norms[query];
  // Undo the rounding of the stored norm, upwards.
  const double x = std::sqrt(static_cast<double>(row_norm_squared_max) * (1 + 2 * u) + 0x1p-149);
  double bound = 0;
  double largest = 0;  // of the distance's magnitude, or of a sum on the way
  switch (p.metric) {
    case Metric::kDot:
      largest = q * x;
      bound = (single + batch) * q * x + underflow;
      break;
    case Metric::kL2:
      largest = (q + x) * (q + x);
      bound = gamma(single_depth + 2) * largest + 2 * batch * (1 + u) * q * x +
              3.01 * u * (q * q + x * x) + 2.01 * u * q * x + underflow;
      break;
    case Metric::kCosine:
      largest = 1;
      bound = (single + batch) * (1 + 6 * u) + 4 * u + underflow * 0x1p63;
      if (!std::isfinite(q)) return kFarthest;
      break;
  }
  // Half of the float range leaves room for every rounding on the way; the second line is the
  // caller's `threshold + bound`, and the third the roundings of this function.
  if (!(largest + bound < 0.5 * static_cast<double>(kLargest))) return kFarthest;
  bound += 1.01 * u * (largest + bound);
  return std::nextafter(static_cast<float>(bound * (1 + 1e-9)), kFarthest);
}

}  // namespace aionbd
