// Conversion of stored numbers to f32, a block of rows at a time.
#include "cli/dense_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace aionbd {
namespace {

/// IEEE half to float, exact. Half-precision subnormals are multiples of 2^-24.
float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU;
  const uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide_exponent = exponent == 0x1F ? 0xFFU : exponent + (127 - 15);
  return std::bit_cast<float>(sign | (wide_exponent << 23) | (mantissa << 13));
}

template <typename T>
T load(const std::byte* from, bool big_endian) {
  std::byte raw[sizeof(T)];
  std::memcpy(raw, from, sizeof(T));
  if (big_endian) std::reverse(raw, raw + sizeof(T));
  T value;
  std::memcpy(&value, raw, sizeof(T));
  return value;
}

template <typename T>
void convert(const std::byte* from, size_t count, bool big_endian, float* out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(load<T>(from + i * sizeof(T), big_endian));
  }
}

void convert_any(ElementType type, const std::byte* from, size_t count, bool big, float* out) {
  switch (type) {
    case ElementType::kF16:
      for (size_t i = 0; i < count; ++i) out[i] = half_to_float(load<uint16_t>(from + i * 2, big));
      return;
    case ElementType::kF32: return convert<float>(from, count, big, out);
    case ElementType::kF64: return convert<double>(from, count, big, out);
    case ElementType::kI8: return convert<int8_t>(from, count, big, out);
    case ElementType::kU8: return convert<uint8_t>(from, count, big, out);
    case ElementType::kI16: return convert<int16_t>(from, count, big, out);
    case ElementType::kU16: return convert<uint16_t>(from, count, big, out);
    case ElementType::kI32: return convert<int32_t>(from, count, big, out);
    case ElementType::kU32: return convert<uint32_t>(from, count, big, out);
    case ElementType::kI64: return convert<int64_t>(from, count, big, out);
    case ElementType::kU64: return convert<uint64_t>(from, count, big, out);
  }
}

/// Thread safety: single owner.
class DenseSource : public RowSource {
 public:
  DenseSource(std::unique_ptr<ByteStream> stream, const DenseLayout& layout)
      : stream_(std::move(stream)), layout_(layout) {}

  Status next(size_t rows_max, size_t bytes_max, RowBatch* out) override {
    *out = RowBatch{};
    out->first_row = row_;
    const uint64_t left = layout_.rows - row_;
    const size_t row_floats_bytes = columns() * sizeof(float);
    const uint64_t take =
        std::min<uint64_t>({left, rows_max, std::max<size_t>(1, bytes_max / row_floats_bytes)});
    if (take == 0) return expect_end();
    const auto rows = static_cast<size_t>(take);
    raw_.resize(rows * columns() * element_bytes(layout_.type));
    const Status read = stream_->read_exactly(raw_);
    if (!read.ok()) {
      return read.with_context("in rows " + std::to_string(row_) + " to " +
                               std::to_string(row_ + take - 1) + " of " +
                               std::to_string(layout_.rows));
    }
    out->dimension = dimension();
    out->values.resize(rows * columns());
    convert_any(layout_.type, raw_.data(), out->values.size(), layout_.big_endian,
                out->values.data());
    out->rows_taken = take;
    row_ += take;
    return {};
  }

  Status skip(uint64_t rows) override {
    if (rows > layout_.rows - row_) return corruption("the file has fewer rows than to be skipped");
    // Cannot wrap: the product for all rows was checked when the file was opened.
    RETURN_IF_ERROR(stream_->skip(rows * columns() * element_bytes(layout_.type)));
    row_ += rows;
    return {};
  }

  uint32_t dimension() const override { return static_cast<uint32_t>(layout_.columns); }
  std::optional<uint64_t> rows_count() const override { return layout_.rows; }
  uint64_t consumed() const override { return stream_->consumed(); }
  uint64_t file_bytes() const override { return stream_->file_bytes(); }

 private:
  size_t columns() const { return static_cast<size_t>(layout_.columns); }
  /// More bytes than the header announced mean that one of the two is wrong.
  Status expect_end() {
    std::byte extra;
    ASSIGN_OR_RETURN(const size_t got, stream_->read(std::span(&extra, 1)));
    if (got != 0) return corruption("the file goes on after the last row its header announces");
    return {};
  }

  std::unique_ptr<ByteStream> stream_;
  const DenseLayout layout_;
  uint64_t row_ = 0;
  std::vector<std::byte> raw_;
};

}  // namespace

size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kI8:
    case ElementType::kU8: return 1;
    case ElementType::kF16:
    case ElementType::kI16:
    case ElementType::kU16: return 2;
    case ElementType::kF32:
    case ElementType::kI32:
    case ElementType::kU32: return 4;
    case ElementType::kF64:
    case ElementType::kI64:
    case ElementType::kU64: return 8;
  }
  return 8;
}

std::optional<uint64_t> dense_file_bytes(const DenseLayout& layout) {
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(layout.rows, layout.columns, &bytes)) return std::nullopt;
  if (__builtin_mul_overflow(bytes, element_bytes(layout.type), &bytes)) return std::nullopt;
  if (__builtin_add_overflow(bytes, layout.header_bytes, &bytes)) return std::nullopt;
  return bytes;
}

Result<std::unique_ptr<RowSource>> open_dense(std::unique_ptr<ByteStream> stream,
                                              const DenseLayout& layout) {
  if (layout.columns == 0 || layout.columns > kDimensionCeiling) {
    return invalid_argument("numbers per row: got " + std::to_string(layout.columns) +
                            ", want 1 to " + std::to_string(kDimensionCeiling));
  }
  const auto bytes = dense_file_bytes(layout);
  if (!bytes) return corruption("the header announces more bytes than can exist");
  const auto content = stream->content_bytes();
  if (content && *content != *bytes) {
    return corruption("the header announces " + std::to_string(*bytes) + " bytes, the file has " +
                      std::to_string(*content));
  }
  return std::unique_ptr<RowSource>(std::make_unique<DenseSource>(std::move(stream), layout));
}

}  // namespace aionbd
