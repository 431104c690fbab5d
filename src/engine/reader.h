// Reads of points in one view: by id, in id order, by filter.
#pragma once

#include <optional>
#include <vector>

#include "aionbd/collection.h"
#include "engine/segment.h"

namespace aionbd {

/// The point in one row, with what `options` ask for. Errors: corruption.
Result<Point> point_in_row(const Segment& segment, RowId row, const CollectionOptions& collection,
                           const GetOptions& options);

/// The live point `id`, if there is one. Cost: one lookup per segment, newest first.
Result<std::optional<Point>> read_point(const View& view, const CollectionOptions& collection,
                                        const PointId& id, const GetOptions& options);

/// Errors: invalid_argument (bad filter, cursor of the wrong kind). Cost: a merge of the sealed
/// segments from the cursor on; open rows are sorted for each page.
Result<ListPage> list_points(const View& view, const CollectionOptions& collection,
                             const ListRequest& request);

Result<uint64_t> count_matching(const View& view, const Filter& filter);

/// Ids of the live points that match, in no particular order.
Result<std::vector<PointId>> matching_ids(const View& view, IdType id_type, const Filter& filter);

}  // namespace aionbd
