#include "engine/index_file.h"

namespace aionbd {

Result<std::shared_ptr<const VectorIndex>> open_vector_index(const SegmentFile& file, uint32_t rows,
                                                             uint32_t dimension,
                                                             const SiblingIndexes& siblings) {
  const auto read = [&](IndexPart part) -> Result<Bytes> {
    ASSIGN_OR_RETURN(const Section section, file.section(index_tag(part)));
    return section.all();
  };
  return VectorIndex::open(read, rows, dimension, siblings);
}

Result<FieldIndex> open_field_index(const SegmentFile& file, uint32_t rows) {
  ASSIGN_OR_RETURN(const Section section, file.section(kTagFields));
  ASSIGN_OR_RETURN(const Bytes bytes, section.all());
  return FieldIndex::open(bytes, rows);
}

}  // namespace aionbd
