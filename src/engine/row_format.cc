#include "engine/row_format.h"

#include <bit>

namespace aionbd {

namespace {

constexpr float kBytesSpan = 255;

/// Whether each value comes back from a byte with the same bits: -0 does not. No branch depends on
/// a value, so that the loop is compiled to vectors.
bool all_fit(std::span<const float> values, float lowest) {
  const float highest = lowest + kBytesSpan;
  bool fit = true;
  for (const float value : values) {
    // What is not a number becomes `lowest`, which it does not equal.
    const float low = value >= lowest ? value : lowest;
    const float bounded = low <= highest ? low : highest;
    const auto back = static_cast<float>(static_cast<int32_t>(bounded));
    fit &= std::bit_cast<uint32_t>(back) == std::bit_cast<uint32_t>(value);
  }
  return fit;
}

}  // namespace

const RowFormat& row_format_in(const SegmentFile& file) {
  for (const RowFormat& format : kRowFormats) {
    if (file.has_section(format.tag)) return format;
  }
  return kRowFormats.back();
}

RowValues values_in(const RowFormat& format, const std::byte* data) {
  if (format.value_bytes == 1) {
    return RowValues(reinterpret_cast<const uint8_t*>(data), format.lowest);
  }
  return RowValues(reinterpret_cast<const float*>(data));
}

void RowFormatChoice::look_at(std::span<const float> values) {
  for (size_t i = 0; i < fits_.size(); ++i) {
    fits_[i] = fits_[i] && all_fit(values, kRowFormats[i].lowest);
  }
}

const RowFormat& RowFormatChoice::choice() const {
  for (size_t i = 0; i < fits_.size(); ++i) {
    if (fits_[i]) return kRowFormats[i];
  }
  return kRowFormats.back();
}

void narrow_values(const RowFormat& format, std::span<const float> values, uint8_t* out) {
  for (size_t i = 0; i < values.size(); ++i) {
    out[i] = static_cast<uint8_t>(static_cast<int32_t>(values[i] - format.lowest));
  }
}

}  // namespace aionbd
