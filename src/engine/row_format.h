// In what form a sealed segment keeps the values of its rows: the narrowest that holds every one of
// them exactly. Much of what people store are integers that were made floats on the way (pixels,
// SIFT and other image descriptors, embeddings quantised to int8 by whoever made them); as bytes
// they take a quarter of the disk, of the memory and of the time it takes to read them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "distance/row_values.h"
#include "engine/segment_sections.h"

namespace aionbd {

/// One row of the table of forms.
struct RowFormat {
  SectionTag tag;  // of the section that holds the values
  std::string_view name;
  uint32_t value_bytes;
  float lowest;  // of bytes: value = lowest + byte
};

/// The narrow ones first; the last one holds everything.
inline constexpr std::array<RowFormat, 3> kRowFormats = {{
    {kTagValuesU8, "u8", 1, 0},
    {kTagValuesI8, "i8", 1, -128},
    {kTagValues, "f32", sizeof(float), 0},
}};

/// The one whose section a file has; f32, when it has none.
const RowFormat& row_format_in(const SegmentFile& file);

/// Values that lie at `data` in this form. REQUIRES: aligned for it.
RowValues values_in(const RowFormat& format, const std::byte* data);

/// Looks at values and finds the form for all of them. Thread safety: single owner.
class RowFormatChoice {
 public:
  void look_at(std::span<const float> values);
  /// Nothing but f32 can come of it: further values need no look.
  bool settled() const { return !fits_[0] && !fits_[1]; }
  const RowFormat& choice() const;

 private:
  std::array<bool, 2> fits_ = {true, true};  // the first rows of the table
};

/// Values to bytes of a narrow form. REQUIRES: each fits it.
void narrow_values(const RowFormat& format, std::span<const float> values, uint8_t* out);

}  // namespace aionbd
