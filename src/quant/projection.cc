#include "quant/projection.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "distance/kernels.h"
#include "distance/metric.h"
#include "quant/plane_codec.h"

namespace aionbd {

namespace {

/// Rows that decide the principal directions: their noise falls with the number, the cost grows.
constexpr size_t kPcaRowsMax = 8192;
/// Rounds of subspace iteration, at most; spectra that fall slowly converge slowly, and matter
/// least.
constexpr int kPcaRounds = 16;
/// The same when more directions join known ones: where so many are wanted, the variance is spread
/// so evenly that which of them are taken hardly matters.
constexpr int kPcaMoreRounds = 5;
/// It ends when a round adds less than this share of the variance, both of all directions and of
/// those that fill one line of code. What the rounds left out would have added is a few times as
/// much: well under 0.5 % of the best possible on every spectrum tried (projection_test.cc).
constexpr double kPcaGain = 3e-4;
/// More coordinates than this are not worth their code: the rest stays in the dropped length, and
/// estimates are only as good as that allows.
constexpr size_t kCoordinatesMax = 1008;
/// Tried first, because directions cost their number squared: enough for most data.
constexpr size_t kFewCoordinates = 256;
/// Sampled rows asked for their neighbours: enough that the share below is known to about 0.4 %.
constexpr size_t kRankQueries = 200;
/// The rule for how many coordinates: of the true kRankOf nearest, this share must be among the
/// first kRankDepth by projected distance. An estimate that ranks them there costs a few exact
/// distances more; one that does not makes the walk itself lose its way.
constexpr size_t kRankOf = 10;
constexpr size_t kRankDepth = 20;
constexpr double kRankShare = 0.98;
/// Rows that decide whether a projection suits them, at most.
constexpr size_t kSuitsRowsMax = 2048;
/// Their mean square from its mean, in times of that from their own, at most: a row far from the
/// mean has a long code, and each step of that is longer.
constexpr double kSuitsSpread = 1.5;

constexpr double kUnitRoundoff = 0x1p-24;
/// Training makes about 1e-6.
constexpr double kDeviationMax = 0.01;
/// Vectors further than this from the mean are scaled down to it, with infinite slack: their
/// squares would not fit in a float.
constexpr double kLongest = 1e18;
/// Where the dropped length, from the difference of two squares, may be off by more than this share
/// of the vector's length, it is computed again from the vector that is dropped. That costs as much
/// as the projection; below this share the 8-bit codes' own error (0.7 %) hides it.
constexpr double kResidualShare = 0x1p-9;

/// The rows less the mean, times `scale`.
Matrix centered(const Matrix& sample, size_t rows, const std::vector<float>& mean, float scale) {
  Matrix out(rows, sample.columns);
  for (size_t i = 0; i < rows; ++i) {
    const float* from = sample.row(i);
    float* to = out.row(i);
    for (size_t k = 0; k < sample.columns; ++k) to[k] = (from[k] - mean[k]) * scale;
  }
  return out;
}

/// A power of two that brings the largest coordinate near 1, so that no square or fourth power on
/// the way leaves the range of a float.
float scale_of(const Matrix& sample, const std::vector<float>& mean) {
  float largest = 0;
  for (size_t i = 0; i < sample.rows; ++i) {
    for (size_t k = 0; k < sample.columns; ++k) {
      largest = std::max(largest, std::abs(sample.row(i)[k] - mean[k]));
    }
  }
  if (!(largest > 0) || !std::isfinite(largest)) return 1;
  return std::ldexp(1.0F, -std::clamp(std::ilogb(largest), -120, 120));
}

std::vector<float> mean_of(const Matrix& sample) {
  std::vector<double> sum(sample.columns);
  for (size_t i = 0; i < sample.rows; ++i) {
    for (size_t k = 0; k < sample.columns; ++k) sum[k] += sample.row(i)[k];
  }
  std::vector<float> mean(sample.columns);
  for (size_t k = 0; k < mean.size(); ++k) {
    mean[k] = static_cast<float>(sum[k] / static_cast<double>(sample.rows));
  }
  return mean;
}

/// rows^T x rows. Half of it is computed, panel by panel, and mirrored.
Matrix covariance_of(const Matrix& rows) {
  constexpr size_t kPanel = 256;
  const Matrix columns = transposed(rows);
  const size_t dim = columns.rows;
  Matrix out(dim, dim);
  for (size_t from = 0; from < dim; from += kPanel) {
    const size_t to = std::min(from + kPanel, dim);
    Matrix panel(to - from, columns.columns);
    std::copy_n(columns.row(from), panel.values.size(), panel.values.begin());
    Matrix rest(dim - from, columns.columns);
    std::copy_n(columns.row(from), rest.values.size(), rest.values.begin());
    const Matrix products = multiply_transposed(rest, panel);
    for (size_t i = from; i < dim; ++i) {
      for (size_t j = from; j < to; ++j) {
        out.row(i)[j] = out.row(j)[i] = products.row(i - from)[j - from];
      }
    }
  }
  return out;
}

/// Orthonormal directions, most variance first (approximately: orthogonal iteration, whose leading
/// directions converge to the leading ones). start: fewer of them, or none, to go on from.
Matrix principal_directions(const Matrix& covariance, size_t count, const Matrix& start,
                            const std::function<bool()>& cancelled, Rng* rng) {
  Matrix basis = random_normal(count, covariance.columns, rng);
  std::copy(start.values.begin(), start.values.end(), basis.values.begin());
  orthonormalize_rows(&basis, rng);
  const size_t line = std::min(count, coordinates_in_lines(1) - 1);
  double before_line = 0;
  double before_all = 0;
  const int rounds = start.rows == 0 ? kPcaRounds : kPcaMoreRounds;
  for (int round = 0; round < rounds && !cancelled(); ++round) {
    Matrix next = multiply_transposed(basis, covariance);
    double of_line = 0;
    double all = 0;
    for (size_t j = 0; j < count; ++j) {
      for (size_t k = 0; k < basis.columns; ++k) {
        all += static_cast<double>(basis.row(j)[k]) * next.row(j)[k];
      }
      if (j + 1 == line) of_line = all;
    }
    basis = std::move(next);
    orthonormalize_rows(&basis, rng);
    const bool settled =
        of_line - before_line <= kPcaGain * of_line && all - before_all <= kPcaGain * all;
    if (round > 1 && settled) break;
    before_line = of_line;
    before_all = all;
  }
  return basis;
}

/// sum over i of (a_i - b_i)^2 for i in [from, to). Eight sums, which the compiler makes vectors
/// of.
float partial_distance(const float* a, const float* b, size_t from, size_t to) {
  constexpr size_t kSums = 8;
  float sums[kSums] = {};
  size_t i = from;
  for (; i + kSums <= to; i += kSums) {
    for (size_t s = 0; s < kSums; ++s) {
      const float difference = a[i + s] - b[i + s];
      sums[s] += difference * difference;
    }
  }
  for (; i < to; ++i) sums[0] += (a[i] - b[i]) * (a[i] - b[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

double rank_share(const std::vector<std::vector<uint32_t>>& nearest, const Matrix& estimates) {
  size_t found = 0;
  size_t wanted = 0;
  std::vector<float> order;
  for (size_t q = 0; q < nearest.size(); ++q) {
    const float* row = estimates.row(q);
    order.assign(row, row + estimates.columns);
    const size_t depth = std::min(kRankDepth, order.size() - 1);
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(depth),
                     order.end());
    for (const uint32_t id : nearest[q]) found += row[id] <= order[depth] ? 1 : 0;
    wanted += nearest[q].size();
  }
  return wanted == 0 ? 1 : static_cast<double>(found) / static_cast<double>(wanted);
}

/// True neighbours of the first kRankQueries rows among all rows, themselves excluded.
std::vector<std::vector<uint32_t>> true_neighbours(const Matrix& rows) {
  const size_t queries = std::min(kRankQueries, rows.rows);
  std::vector<std::vector<uint32_t>> out(queries);
  std::vector<float> distances(rows.rows);
  std::vector<uint32_t> order(rows.rows);
  for (size_t q = 0; q < queries; ++q) {
    kernels().l2_squared(rows.row(q), rows.values.data(), rows.columns, rows.rows,
                         distances.data());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    distances[q] = kFarthest;
    const size_t depth = std::min(kRankOf, rows.rows - 1);
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(depth), order.end(),
                     [&](uint32_t a, uint32_t b) { return distances[a] < distances[b]; });
    out[q].assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(depth));
  }
  return out;
}

/// The fewest leading coordinates of `projected` (whole code lines) that satisfy the rule.
size_t choose_coordinates(const Matrix& rows, const Matrix& projected) {
  const std::vector<std::vector<uint32_t>> nearest = true_neighbours(rows);
  Matrix estimates(nearest.size(), rows.rows);
  size_t done = 0;
  for (size_t lines = 1;; ++lines) {
    // One coordinate is left for the length of what is dropped.
    const bool all_fit = coordinates_in_lines(lines) >= rows.columns;
    const size_t count =
        std::min(coordinates_in_lines(lines) - (all_fit ? 0 : 1), projected.columns);
    for (size_t q = 0; q < nearest.size(); ++q) {
      for (size_t i = 0; i < rows.rows; ++i) {
        estimates.row(q)[i] += partial_distance(projected.row(q), projected.row(i), done, count);
      }
      estimates.row(q)[q] = kFarthest;
    }
    done = count;
    if (count == projected.columns || rank_share(nearest, estimates) >= kRankShare) return count;
  }
}

/// rotation (m x m) x basis (m x d): the rows of the product.
Matrix rotated(const Matrix& basis, Rng* rng) {
  Matrix rotation = random_normal(basis.rows, basis.rows, rng);
  orthonormalize_rows(&rotation, rng);
  return multiply_transposed(rotation, transposed(basis));
}

/// An upper bound of the spectral norm of P P^T - I: its Frobenius norm, from products in double.
double deviation_of(const Matrix& matrix) {
  double squares = 0;
  for (size_t i = 0; i < matrix.rows; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const float* a = matrix.row(i);
      const float* b = matrix.row(j);
      double sums[4] = {};
      size_t k = 0;
      for (; k + 4 <= matrix.columns; k += 4) {
        for (size_t s = 0; s < 4; ++s) sums[s] += static_cast<double>(a[k + s]) * b[k + s];
      }
      for (; k < matrix.columns; ++k) sums[0] += static_cast<double>(a[k]) * b[k];
      const double off = (sums[0] + sums[1]) + (sums[2] + sums[3]) - (i == j ? 1.0 : 0.0);
      squares += (i == j ? 1 : 2) * off * off;
    }
  }
  // Each product is off by at most columns x 2^-53 x |row|^2; the lengths are near 1.
  const auto rows = static_cast<double>(matrix.rows);
  const auto columns = static_cast<double>(matrix.columns);
  return std::sqrt(squares) * (1 + 1e-9) + 2 * rows * columns * 0x1p-53;
}

/// |computed - exact| / |vector| of a product with `rows` rows of length at most `row_length`, in
/// the worst order of additions that either kernel uses.
double product_error(size_t rows, size_t columns, double row_length) {
  const auto depth =
      static_cast<double>(std::max(batch_depth(columns), kernels().sum_depth(columns)));
  const double ku = depth * kUnitRoundoff;
  return ku / (1 - ku) * std::sqrt(static_cast<double>(rows)) * row_length;
}

/// A float not below `value`. REQUIRES: value is not negative.
float rounded_up(double value) {
  if (!(value <= static_cast<double>(std::numeric_limits<float>::max()))) return kFarthest;
  return std::nextafter(static_cast<float>(value), kFarthest);
}

}  // namespace

Projection Projection::train(const Matrix& sample, uint64_t seed,
                             const std::function<bool()>& cancelled) {
  Rng rng(seed);
  Projection out;
  out.dim_ = sample.columns;
  out.mean_ = mean_of(sample);
  if (coordinates_in_lines(1) >= out.dim_) {
    out.matrix_ = random_normal(out.dim_, out.dim_, &rng);
    orthonormalize_rows(&out.matrix_, &rng);
    out.deviation_ = deviation_of(out.matrix_);
    out.finish();
    return out;
  }
  const float scale = scale_of(sample, out.mean_);
  const Matrix rows = centered(sample, sample.rows, out.mean_, scale);
  const Matrix covariance =
      covariance_of(centered(sample, std::min(sample.rows, kPcaRowsMax), out.mean_, scale));
  Matrix basis;
  Matrix projected;
  size_t count = 0;
  for (size_t most = kFewCoordinates;; most = kCoordinatesMax - 1) {
    const size_t tried = std::min(out.dim_, most);
    basis = principal_directions(covariance, tried, basis, cancelled, &rng);
    if (cancelled()) return out;
    projected = multiply_transposed(rows, basis);
    count = choose_coordinates(rows, projected);
    if (count < tried || tried == out.dim_ || most > kFewCoordinates) break;
  }
  basis.rows = count;
  basis.values.resize(count * basis.columns);
  double total = 0;
  double kept = 0;
  double dropped = 0;
  for (size_t i = 0; i < rows.rows; ++i) {
    const double all = sum_of_squares(rows.row(i), rows.columns);
    const double here = sum_of_squares(projected.row(i), count);
    total += all;
    kept += here;
    dropped += std::sqrt(std::max(0.0, all - here));
  }
  out.kept_variance_ = total > 0 ? static_cast<float>(std::min(1.0, kept / total)) : 1;
  out.dropped_mean_ = static_cast<float>(dropped / static_cast<double>(rows.rows) / scale);
  out.matrix_ = rotated(basis, &rng);
  out.deviation_ = deviation_of(out.matrix_);
  out.finish();
  return out;
}

bool Projection::suits(const Matrix& sample) const {
  const size_t count = std::min(sample.rows, kSuitsRowsMax);
  const std::vector<float> own = mean_of(sample);
  const float scale = scale_of(sample, own);
  const Matrix around_own = centered(sample, count, own, scale);
  const Matrix rows = centered(sample, count, mean_, scale);
  const double spread = sum_of_squares(around_own.values.data(), around_own.values.size());
  const double here = sum_of_squares(rows.values.data(), rows.values.size());
  if (!(here <= kSuitsSpread * spread)) return false;
  if (!truncates()) return true;
  const Matrix projected = multiply_transposed(rows, matrix_);
  const std::vector<std::vector<uint32_t>> nearest = true_neighbours(rows);
  Matrix estimates(nearest.size(), count);
  for (size_t q = 0; q < nearest.size(); ++q) {
    for (size_t i = 0; i < count; ++i) {
      estimates.row(q)[i] =
          partial_distance(projected.row(q), projected.row(i), 0, projected.columns);
    }
    estimates.row(q)[q] = kFarthest;
  }
  return rank_share(nearest, estimates) >= kRankShare;
}

// Errors. Let P~ be the matrix with exactly orthonormal rows nearest to P (its polar factor),
// w = deviation_ >= |P P^T - I|, x the vector less the mean as rounded to float, off by at most
// u |x|. Then |P - P~| <= w, every row of P is at most sqrt(1 + w) long, and the computed y
// satisfies
//   (1) |y - P~ x| <= (w + product_error) |x|.
// The length of what is dropped, t = |x - P~^T P~ x|, is computed as
//   (2) sqrt(|x|^2 - |y|^2): by (1), with e its right side, the squares are off by at most
//       e (2 |x| + e), so the root is off by at most the root of that, and by that over the root;
//   (3) or |x - P^T y|, whose error is linear: |P^T P - P~^T P~| <= w, P^T (y - P x) adds
//       sqrt(1 + w) product_error, the second product (rows of P^T: together sqrt(rows) long) its
//       own rounding, the difference u.
// Underflow adds at most 2^-149 for each multiplication to each coordinate of a product.

void Projection::finish() {
  const double row_length = std::sqrt(1 + deviation_);
  const auto kept = static_cast<double>(matrix_.rows);
  const double product = product_error(matrix_.rows, dim_, row_length);
  relative_slack_ = (deviation_ + product + 2 * kUnitRoundoff) * (1 + 1e-9);
  byte_rows_ = EncodedBytes(dim_);
  byte_rows_.append(matrix_.values.data(), matrix_.rows);
  byte_ids_.resize(matrix_.rows);
  for (uint32_t i = 0; i < byte_ids_.size(); ++i) byte_ids_[i] = i;
  if (!truncates()) return;
  transposed_ = transposed(matrix_);
  // The rows of P^T, each against y: by Cauchy-Schwarz over all of them |P|_F |y|.
  const double second =
      product_error(1, matrix_.rows, std::sqrt(kept) * row_length) * row_length * (1 + product);
  residual_slack_ = (deviation_ + row_length * product + second + 4 * kUnitRoundoff) * (1 + 1e-9);
}

float Projection::load_centred(const float* vector, float* out, double* squared) const {
  for (size_t k = 0; k < dim_; ++k) out[k] = vector[k] - mean_[k];
  *squared = sum_of_squares(out, dim_);
  const double length = std::sqrt(*squared);
  if (length <= kLongest) return 0;
  const double scale = std::isfinite(length) ? kLongest / length : 0;
  for (size_t k = 0; k < dim_; ++k) {
    out[k] = scale > 0 ? static_cast<float>(out[k] * scale) : 0.0F;
  }
  *squared = sum_of_squares(out, dim_);
  return kFarthest;
}

void Projection::multiply(const Matrix& block, const Matrix& by, Matrix* out) const {
  // Packing for the batch kernel pays from a few rows on.
  if (block.rows >= 4) {
    *out = multiply_transposed(block, by);
    return;
  }
  *out = Matrix(block.rows, by.rows);
  for (size_t i = 0; i < block.rows; ++i) {
    kernels().dot(block.row(i), by.values.data(), by.columns, by.rows, out->row(i));
  }
}

void Projection::apply(const float* vectors, size_t n, float* out, float* slack) const {
  constexpr size_t kBlock = 256;
  const size_t width = coordinates();
  std::vector<float> added(std::min(n, kBlock));
  std::vector<double> squares(added.size());
  std::vector<double> errors(added.size());
  Matrix block(added.size(), dim_);
  Matrix projected;
  for (size_t first = 0; first < n; first += kBlock) {
    block.rows = std::min(kBlock, n - first);
    for (size_t i = 0; i < block.rows; ++i) {
      added[i] = load_centred(vectors + (first + i) * dim_, block.row(i), &squares[i]);
    }
    multiply(block, matrix_, &projected);
    for (size_t i = 0; i < block.rows; ++i) {
      std::copy_n(projected.row(i), matrix_.rows, out + (first + i) * width);
      errors[i] = relative_slack_ * std::sqrt(squares[i]) + underflow();
    }
    if (truncates()) append_dropped(block, projected, out + first * width, errors.data());
    if (slack == nullptr) continue;
    for (size_t i = 0; i < block.rows; ++i) {
      slack[first + i] = rounded_up(errors[i] * (1 + 1e-9)) + added[i];
    }
  }
}

double Projection::underflow() const {
  const auto kept = static_cast<double>(matrix_.rows);
  const auto dim = static_cast<double>(dim_);
  return 2 * kept * dim * 0x1p-149;  // more than sqrt(kept) coordinates of dim multiplications
}

void Projection::append_dropped(const Matrix& block, const Matrix& projected, float* out,
                                double* errors) const {
  const size_t kept = matrix_.rows;
  // Of a sum of squares in double.
  const double sum_error = static_cast<double>(dim_ + 8) * 0x1p-52;
  std::vector<size_t> again;
  for (size_t i = 0; i < block.rows; ++i) {
    const double all = sum_of_squares(block.row(i), dim_);
    const double here = sum_of_squares(projected.row(i), kept);
    const double length = std::sqrt(all);
    const double dropped = std::sqrt(std::max(0.0, all - here));
    const double squares = errors[i] * (2 * length + errors[i]) + sum_error * (all + here);
    double root = std::sqrt(squares);
    if (dropped > root) root = squares / dropped;
    if (root > kResidualShare * length) {
      again.push_back(i);
      continue;
    }
    set_dropped(dropped, root, out + i * coordinates() + kept, errors + i);
  }
  if (again.empty()) return;
  Matrix known(again.size(), kept);
  for (size_t a = 0; a < again.size(); ++a) {
    std::copy_n(projected.row(again[a]), kept, known.row(a));
  }
  Matrix parts;
  multiply(known, transposed_, &parts);
  for (size_t a = 0; a < again.size(); ++a) {
    const size_t i = again[a];
    const float* row = block.row(i);
    float* part = parts.row(a);
    for (size_t k = 0; k < dim_; ++k) part[k] = row[k] - part[k];
    const double length = std::sqrt(sum_of_squares(row, dim_));
    set_dropped(std::sqrt(sum_of_squares(part, dim_)), residual_slack_ * length + 2 * underflow(),
                out + i * coordinates() + kept, errors + i);
  }
}

void Projection::set_dropped(double dropped, double off, float* out, double* error) const {
  *out = static_cast<float>(dropped - dropped_mean_);
  *error += off + 2 * kUnitRoundoff * (dropped + dropped_mean_) + 0x1p-149;
}

void Projection::apply_fast(const float* vector, float* out) const {
  const size_t kept = matrix_.rows;
  thread_local std::vector<float> centred;
  centred.resize(dim_);
  double squared = 0;
  load_centred(vector, centred.data(), &squared);
  ByteQuery(centred.data(), dim_).products(byte_rows_.view(), byte_ids_.data(), kept, out);
  if (!truncates()) return;
  const double dropped = squared - sum_of_squares(out, kept);
  out[kept] = static_cast<float>(std::sqrt(std::max(0.0, dropped)) - dropped_mean_);
}

void Projection::restore(const float* y, float* out) const {
  std::copy(mean_.begin(), mean_.end(), out);
  for (size_t i = 0; i < matrix_.rows; ++i) {
    const float* row = matrix_.row(i);
    for (size_t k = 0; k < dim_; ++k) out[k] += y[i] * row[k];
  }
}

void Projection::save(std::string* out) const {
  Encoder encoder(out);
  encoder.put(static_cast<uint32_t>(dim_));
  encoder.put(static_cast<uint32_t>(matrix_.rows));
  encoder.put(kept_variance_);
  encoder.put(dropped_mean_);
  encoder.put(deviation_);
  encoder.put_raw(mean_.data(), mean_.size() * sizeof(float));
  encoder.put_raw(matrix_.values.data(), matrix_.values.size() * sizeof(float));
}

bool Projection::saved_as(Bytes bytes) const {
  std::string saved;
  save(&saved);
  return bytes.size() == saved.size() && std::memcmp(bytes.data(), saved.data(), saved.size()) == 0;
}

Result<Projection> Projection::load(Bytes bytes) {
  Decoder decoder(bytes);
  Projection out;
  out.dim_ = decoder.get<uint32_t>();
  const size_t kept = decoder.get<uint32_t>();
  out.kept_variance_ = decoder.get<float>();
  out.dropped_mean_ = decoder.get<float>();
  out.deviation_ = decoder.get<double>();
  const bool sane = decoder.ok() && out.dim_ >= 1 && out.dim_ <= kDimensionCeiling + 1 &&
                    kept >= 1 && kept <= out.dim_ &&
                    decoder.remaining() == (out.dim_ + kept * out.dim_) * sizeof(float);
  if (!sane) return corruption("projection: sizes do not fit");
  out.mean_.resize(out.dim_);
  out.matrix_ = Matrix(kept, out.dim_);
  const Bytes mean = decoder.get_raw(out.dim_ * sizeof(float));
  std::memcpy(out.mean_.data(), mean.data(), mean.size());
  const Bytes matrix = decoder.get_raw(kept * out.dim_ * sizeof(float));
  std::memcpy(out.matrix_.values.data(), matrix.data(), matrix.size());
  RETURN_IF_ERROR(out.check_loaded());
  out.finish();
  return out;
}

Status Projection::check_loaded() const {
  const bool scalars = kept_variance_ >= 0 && kept_variance_ <= 1 && dropped_mean_ >= 0 &&
                       std::isfinite(dropped_mean_) && deviation_ >= 0 &&
                       deviation_ <= kDeviationMax;
  if (!scalars) return corruption("projection: a figure is out of range");
  for (const float value : mean_) {
    if (!std::isfinite(value)) return corruption("projection: the mean is not finite");
  }
  for (size_t i = 0; i < matrix_.rows; ++i) {
    // Negated, so that a NaN fails.
    const double off = std::abs(sum_of_squares(matrix_.row(i), dim_) - 1);
    if (!(off <= deviation_ + 1e-9)) return corruption("projection: a row is not of length 1");
  }
  return Status();
}

}  // namespace aionbd
