// Files that hold the index of one segment: which sections they have, and how they are opened.
// Layout: docs/format.md, "Vector index file", "Field index file".
#pragma once

#include <memory>

#include "aionbd/status.h"
#include "index/vector_index.h"
#include "payload/field_index.h"
#include "storage/segment_file.h"

namespace aionbd {

/// The one section of a field index file. Persistent, never renumber.
inline constexpr SectionTag kTagFields = 11;

/// The section of a vector index file that holds a part.
inline SectionTag index_tag(IndexPart part) {
  return static_cast<SectionTag>(part);
}

/// Reads in place what `file` holds for a segment of `rows` rows; `file` must outlive the index.
/// Verifies every block and checks the whole structure. `siblings`: as for VectorIndex::open.
/// Errors: corruption.
Result<std::shared_ptr<const VectorIndex>> open_vector_index(const SegmentFile& file, uint32_t rows,
                                                             uint32_t dimension,
                                                             const SiblingIndexes& siblings = {});
Result<FieldIndex> open_field_index(const SegmentFile& file, uint32_t rows);

}  // namespace aionbd
