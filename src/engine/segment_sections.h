// The sections of a sealed segment's file. Layout: docs/format.md, "Segment sections".
#pragma once

#include <cstdint>

#include "storage/segment_file.h"

namespace aionbd {

// Persistent, never renumber.
enum : SectionTag {
  kTagMeta = 1,
  kTagIds = 2,
  kTagIdOffsets = 3,
  kTagIdTexts = 4,
  kTagValues = 5,
  kTagNorms = 6,
  kTagPayloadOffsets = 7,
  kTagPayloads = 8,
  kTagKills = 9,
  // 11 is kTagFields (index_file.h)
  kTagValuesU8 = 12,
  kTagValuesI8 = 13,
};

inline constexpr uint64_t kMetaBytes = 24;  // u64 rows, u64 kills, u32 dimension, u32 id type
inline constexpr uint64_t kKillBytes = 16;  // u64 segment, u32 row, u32 zero

}  // namespace aionbd
