// .fvecs, the format of the SIFT and GIST sets (corpus-texmex.irisa.fr): each row is a
// little-endian i32 with its number of values, then that many f32. All rows must have the same
// number.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cli/row_source.h"

namespace aionbd {
namespace {

constexpr size_t kPrefixBytes = 4;

/// Thread safety: single owner.
class FvecsSource : public RowSource {
 public:
  FvecsSource(std::unique_ptr<ByteStream> stream, uint32_t dim, std::optional<uint64_t> rows)
      : stream_(std::move(stream)), dim_(dim), rows_(rows) {}

  Status next(size_t rows_max, size_t bytes_max, RowBatch* out) override {
    *out = RowBatch{};
    out->first_row = row_;
    // The prefix of the first row was read when the file was opened.
    const size_t row_bytes = kPrefixBytes + dim_ * sizeof(float);
    const size_t want = std::min(rows_max, std::max<size_t>(1, bytes_max / row_bytes)) * row_bytes;
    raw_.resize(want);
    size_t have = 0;
    if (first_prefix_pending_) {
      std::memcpy(raw_.data(), &dim_, kPrefixBytes);
      have = kPrefixBytes;
      first_prefix_pending_ = false;
    }
    ASSIGN_OR_RETURN(const size_t got, stream_->read(std::span(raw_).subspan(have)));
    have += got;
    if (have % row_bytes != 0) {
      return corruption("the file ends inside row " + std::to_string(row_ + have / row_bytes));
    }
    const size_t rows = have / row_bytes;
    out->values.resize(rows * dim_);
    for (size_t i = 0; i < rows; ++i) {
      const std::byte* row = raw_.data() + i * row_bytes;
      uint32_t dim = 0;
      std::memcpy(&dim, row, kPrefixBytes);
      if (dim != dim_) {
        return corruption("row " + std::to_string(row_ + i) + " has another dimension: got " +
                          std::to_string(dim) + ", want " + std::to_string(dim_));
      }
      std::memcpy(out->values.data() + i * dim_, row + kPrefixBytes, dim_ * sizeof(float));
    }
    out->dimension = dim_;
    out->rows_taken = rows;
    row_ += rows;
    return {};
  }

  Status skip(uint64_t rows) override {
    if (rows == 0) return {};
    const uint64_t row_bytes = kPrefixBytes + uint64_t{dim_} * sizeof(float);
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(rows, row_bytes, &bytes)) {
      return corruption("the file has fewer rows than to be skipped");
    }
    if (first_prefix_pending_) bytes -= kPrefixBytes;
    first_prefix_pending_ = false;
    RETURN_IF_ERROR(stream_->skip(bytes));
    row_ += rows;
    return {};
  }

  uint32_t dimension() const override { return dim_; }
  std::optional<uint64_t> rows_count() const override { return rows_; }
  uint64_t consumed() const override { return stream_->consumed(); }
  uint64_t file_bytes() const override { return stream_->file_bytes(); }

 private:
  std::unique_ptr<ByteStream> stream_;
  const uint32_t dim_;
  const std::optional<uint64_t> rows_;
  bool first_prefix_pending_ = true;
  uint64_t row_ = 0;
  std::vector<std::byte> raw_;
};

}  // namespace

Result<std::unique_ptr<RowSource>> open_fvecs(std::unique_ptr<ByteStream> stream) {
  uint32_t dim = 0;
  RETURN_IF_ERROR(stream->read_exactly(std::as_writable_bytes(std::span(&dim, 1))));
  if (dim == 0 || dim > kDimensionCeiling) {
    return corruption("numbers per row: got " + std::to_string(dim) + ", want 1 to " +
                      std::to_string(kDimensionCeiling));
  }
  const uint64_t row_bytes = kPrefixBytes + uint64_t{dim} * sizeof(float);
  std::optional<uint64_t> rows;
  if (const auto content = stream->content_bytes()) {
    if (*content % row_bytes != 0) {
      return corruption("the length of the file is no multiple of a row's " +
                        std::to_string(row_bytes) + " bytes");
    }
    rows = *content / row_bytes;
  }
  return std::unique_ptr<RowSource>(std::make_unique<FvecsSource>(std::move(stream), dim, rows));
}

}  // namespace aionbd
