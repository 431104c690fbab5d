// Rows of a file whose header is followed by one array of numbers, row after row (.npy, IDX).
#pragma once

#include <cstdint>
#include <memory>

#include "aionbd/status.h"
#include "cli/row_source.h"

namespace aionbd {

enum class ElementType : uint8_t {
  kF16,
  kF32,
  kF64,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
};
/// Bytes of one number.
size_t element_bytes(ElementType type);

/// What a header said.
struct DenseLayout {
  ElementType type = ElementType::kF32;
  bool big_endian = false;
  uint64_t rows = 0;
  uint64_t columns = 0;  // numbers per row; checked against kDimensionCeiling by open_dense
  uint64_t header_bytes = 0;
};

/// The rows behind the header; `stream` is past the header. Numbers that are no f32 are rounded to
/// the nearest one (integers beyond 2^24, doubles). Errors: corruption when the layout and the
/// length of the file do not agree, invalid_argument when a row has no or too many numbers.
Result<std::unique_ptr<RowSource>> open_dense(std::unique_ptr<ByteStream> stream,
                                              const DenseLayout& layout);

/// rows × columns × element size + header, or empty when that is beyond 2^64.
std::optional<uint64_t> dense_file_bytes(const DenseLayout& layout);

}  // namespace aionbd
