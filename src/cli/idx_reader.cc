// IDX, the format of the MNIST files (Yann LeCun): two zero bytes, a type, the number of axes, one
// big-endian u32 per axis, then the numbers, big-endian. Axis 0 counts rows; the others together
// make the vector, so 28 × 28 images become 784 numbers.
#include <array>
#include <string>
#include <utility>

#include "cli/dense_reader.h"
#include "cli/row_source.h"

namespace aionbd {
namespace {

/// Deepest IDX file in use has 4 axes (rows, height, width, channels).
constexpr unsigned kAxesMax = 8;

Result<ElementType> element_of(unsigned code) {
  switch (code) {
    case 0x08: return ElementType::kU8;
    case 0x09: return ElementType::kI8;
    case 0x0B: return ElementType::kI16;
    case 0x0C: return ElementType::kI32;
    case 0x0D: return ElementType::kF32;
    case 0x0E: return ElementType::kF64;
    default: return corruption("unknown IDX number type " + std::to_string(code));
  }
}

struct IdxHeader {
  DenseLayout layout;
  unsigned axes = 0;
};

Result<IdxHeader> read_header(ByteStream& stream) {
  std::array<unsigned char, 4> raw{};
  RETURN_IF_ERROR(stream.read_exactly(std::as_writable_bytes(std::span(raw))));
  if (raw[0] != 0 || raw[1] != 0) return corruption("not an IDX file");
  IdxHeader header;
  ASSIGN_OR_RETURN(header.layout.type, element_of(raw[2]));
  header.axes = raw[3];
  if (header.axes == 0 || header.axes > kAxesMax) {
    return corruption("an IDX file of " + std::to_string(header.axes) + " axes, want 1 to " +
                      std::to_string(kAxesMax));
  }
  header.layout.big_endian = true;
  header.layout.columns = 1;
  header.layout.header_bytes = 4 + 4 * uint64_t{header.axes};
  for (unsigned axis = 0; axis < header.axes; ++axis) {
    RETURN_IF_ERROR(stream.read_exactly(std::as_writable_bytes(std::span(raw))));
    const uint64_t size = static_cast<uint64_t>(raw[0]) << 24 |
                          static_cast<uint64_t>(raw[1]) << 16 | static_cast<uint64_t>(raw[2]) << 8 |
                          raw[3];
    if (axis == 0) {
      header.layout.rows = size;
      continue;
    }
    // Each factor is below 2^32 and the product is cut off far below, so it cannot wrap.
    header.layout.columns *= size;
    if (header.layout.columns > kDimensionCeiling) {
      return invalid_argument("numbers per row: more than " + std::to_string(kDimensionCeiling));
    }
  }
  return header;
}

}  // namespace

Result<std::unique_ptr<RowSource>> open_idx(std::unique_ptr<ByteStream> stream) {
  ASSIGN_OR_RETURN(const IdxHeader header, read_header(*stream));
  if (header.axes < 2) {
    return invalid_argument("an IDX file of one axis holds labels, not vectors: see --labels");
  }
  return open_dense(std::move(stream), header.layout);
}

Result<std::unique_ptr<LabelSource>> LabelSource::open(std::unique_ptr<ByteStream> stream) {
  ASSIGN_OR_RETURN(const IdxHeader header, read_header(*stream));
  if (header.axes != 1 || header.layout.type != ElementType::kU8) {
    return invalid_argument("the labels file is not an IDX file of one axis of bytes");
  }
  const auto bytes = dense_file_bytes(header.layout);
  const auto content = stream->content_bytes();
  if (!bytes || (content && *content != *bytes)) {
    return corruption("the labels file is not as long as its header says");
  }
  return std::unique_ptr<LabelSource>(new LabelSource(std::move(stream), header.layout.rows));
}

Status LabelSource::next(size_t rows, std::vector<uint8_t>* out) {
  out->resize(rows);
  const Status read = stream_->read_exactly(std::as_writable_bytes(std::span(*out)));
  return read.ok() ? read : read.with_context("in the labels file");
}

Status LabelSource::skip(uint64_t rows) {
  return stream_->skip(rows);
}

}  // namespace aionbd
