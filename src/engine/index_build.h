// Makes the index files of one sealed segment, and opens those that are stored.
#pragma once

#include "engine/catalog.h"
#include "engine/context.h"
#include "engine/sealed_segment.h"
#include "engine/stored_collection.h"

namespace aionbd {

/// Builds the index of a segment for a metric and opens it; its file is garbage until the catalog
/// names it. Errors: corruption of a row; failed_precondition when the rows do not suit an index;
/// unavailable when cancelled; io_error; storage_full, also where it would fit into the disk's
/// reserve: an index only adds. `inputs`: what the segment was merged of, if it was; its lists
/// start from those of their indexes. `siblings`, `cancelled`, cost: as for build_index.
Result<SegmentIndexes::Entry> build_vector_index(EngineContext& context,
                                                 const SealedSegment& segment, Metric metric,
                                                 std::span<const SegmentView> inputs,
                                                 const SiblingIndexes& siblings,
                                                 const Cancelled& cancelled);

/// The vector indexes that a collection has for a metric.
SiblingIndexes siblings_of(const StoredCollection& collection, Metric metric);

/// Gives a segment that no search sees yet the codes of its rows, in the terms of the largest index
/// of its collection; without one, or where that does not suit the rows, nothing.
/// Errors: corruption of a row. Cost: that of VectorIndex::encode.
Status add_row_codes(const StoredCollection& collection, const SealedSegment& segment,
                     Metric metric);

/// The same for the open rows as they are now; where it cannot, their segment refuses codes from
/// now on. One caller at a time.
Status add_open_codes(const StoredCollection& collection, Metric metric);

/// The same for its payloads. Cost: a pass over them.
Result<SegmentIndexes::Fields> build_field_index(EngineContext& context,
                                                 const SealedSegment& segment,
                                                 const Cancelled& cancelled);

/// Opens a stored index file and attaches it to its segment; shares with `siblings` as
/// VectorIndex::open does. Errors: corruption; io_error.
Status open_stored_index(Storage& storage, const CataloguedIndex& entry,
                         const SealedSegment& segment, const SiblingIndexes& siblings);

}  // namespace aionbd
