// Fewer coordinates, nearly the same distances: y = P (x - mean), P with orthonormal rows.
//
// Where the data has directions that carry little of its variance (most learned or natural data of
// many dimensions), P keeps the principal ones (PCA, Pearson 1901), turned by a random rotation so
// that all coordinates carry alike and one quantisation step suits them all (as RaBitQ does, Gao
// and Long, SIGMOD 2024). What is dropped is remembered as one more coordinate, its length: by the
// triangle inequality the distance of the extended vectors never exceeds the true one, so they
// serve both as estimate and as guaranteed lower bound. Where nothing can be dropped, P is a
// rotation of all dimensions.
//
// How many coordinates to keep is measured: as few as still rank the true neighbours of sampled
// rows near the front (see kRankDepth in projection.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "aionbd/status.h"
#include "base/bytes.h"
#include "quant/byte_codec.h"
#include "quant/matrix.h"

namespace aionbd {

/// Thread safety: immutable once trained.
class Projection {
 public:
  /// sample: rows to learn from, at least one; finite, lengths below 1e18. Deterministic by seed.
  /// Once cancelled, it ends soon and what it returns is of no use.
  /// Cost: about dim^2 x min(rows, 8192) multiply-adds.
  static Projection train(
      const Matrix& sample, uint64_t seed,
      const std::function<bool()>& cancelled = [] { return false; });

  /// Whether other rows are served as the ones it was trained on: it ranks their true neighbours in
  /// front by the rule of training, and they lie around its mean. REQUIRES: sample as for train, of
  /// its dim. Cost: about dim x rows x (200 + coordinates) multiply-adds, of the first 2,048 rows.
  bool suits(const Matrix& sample) const;

  size_t dim() const { return dim_; }
  /// Coordinates of a projected vector, the length of what is dropped included.
  size_t coordinates() const { return matrix_.rows + (truncates() ? 1 : 0); }
  /// Share of the sample's variance that is kept.
  float kept_variance() const { return kept_variance_; }

  /// vectors: float[n x dim] -> out: float[n x coordinates]. `slack[i]` (may be null): how far, in
  /// Euclidean distance, out_i may be from what exact arithmetic and an exactly orthonormal P give.
  /// The last bits of out_i depend on n, always within the slack. Any floats are allowed: a vector
  /// further than 1e18 from the mean is scaled down to that, one that is not finite becomes the
  /// mean, both with infinite slack. Cost: a matrix product; twice that where nearly nothing is
  /// dropped.
  void apply(const float* vectors, size_t n, float* out, float* slack) const;

  /// One vector, from an 8-bit form of P and of the vector: for estimates. Takes a quarter of the
  /// memory traffic, which is what a single projection costs.
  void apply_fast(const float* vector, float* out) const;

  /// The vector of which y is the projection, but for what was dropped: float[coordinates] ->
  /// float[dim].
  void restore(const float* y, float* out) const;

  /// Persistent form. Errors of `load`: corruption, for sizes that do not fit, a number that is not
  /// finite, rows whose lengths are not 1. That the rows are orthogonal is not checked again
  /// (kept^2 x dim products): it is the caller's checksum that vouches for the bytes.
  void save(std::string* out) const;
  /// Whether `bytes` is what save makes of it. Cost: a comparison, up to the first difference.
  bool saved_as(Bytes bytes) const;
  static Result<Projection> load(Bytes bytes);

 private:
  bool truncates() const { return matrix_.rows < dim_; }
  void finish();
  Status check_loaded() const;
  /// Writes vector - mean, scaled down where too long, and its squared length; returns the slack
  /// that adds: 0 or infinity.
  float load_centred(const float* vector, float* out, double* squared) const;
  /// out = block x by^T.
  void multiply(const Matrix& block, const Matrix& by, Matrix* out) const;
  /// Sets the last coordinate of each row of `out` and adds its error to `errors`.
  void append_dropped(const Matrix& block, const Matrix& projected, float* out,
                      double* errors) const;
  void set_dropped(double dropped, double off, float* out, double* error) const;
  double underflow() const;

  size_t dim_ = 0;
  std::vector<float> mean_;
  Matrix matrix_;  // kept x dim
  float kept_variance_ = 1;
  float dropped_mean_ = 0;  // taken off the last coordinate, which keeps it small
  double deviation_ = 0;    // at least |P P^T - I|
  // Derived.
  double relative_slack_ = 0;       // of the kept coordinates, per length of the vector
  double residual_slack_ = 0;       // of the dropped length, where computed from what is dropped
  Matrix transposed_;               // of matrix_, where it truncates
  EncodedBytes byte_rows_{1};       // of matrix_
  std::vector<uint32_t> byte_ids_;  // 0 ... kept - 1
};

}  // namespace aionbd
