// A row: the position of a point in one segment. Never mix with PointId, the user's name of it.
#pragma once

#include <cstdint>

#include "storage/segment_file.h"

namespace aionbd {

using RowId = uint32_t;

/// Rows of one segment; the last RowId stays free as "none".
inline constexpr uint64_t kSegmentRowsMax = 0xFFFFFFFEU;
inline constexpr RowId kNoRow = 0xFFFFFFFFU;

/// A row that a later write made dead: replaced or deleted.
struct Kill {
  SegmentId segment = 0;
  RowId row = 0;
};

}  // namespace aionbd
