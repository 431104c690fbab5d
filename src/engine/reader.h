// Reads of points in one view: by id, in id order, by filter.
#pragma once

#include <optional>
#include <vector>

#include "aionbd/collection.h"
#include "base/clock.h"
#include "engine/answer_account.h"
#include "engine/segment.h"

namespace aionbd {

/// Ends a scan that runs out of time. Thread safety: single owner.
class ScanDeadline {
 public:
  /// Rows between two looks at the clock: under a millisecond of the dearest filter, and the look
  /// costs nothing beside them.
  static constexpr uint32_t kRowsPerLook = 2048;

  ScanDeadline(const Clock& clock, Deadline deadline) : clock_(clock), deadline_(deadline) {}

  /// Call for every row, dead or alive. Errors: deadline_exceeded.
  Status next_row() {
    if (rows_++ % kRowsPerLook != 0) [[likely]]
      return {};
    if (deadline_ == kNoDeadline || clock_.now() < deadline_) return {};
    return deadline_exceeded("request ran out of time while reading points");
  }

 private:
  const Clock& clock_;
  const Deadline deadline_;
  uint64_t rows_ = 0;
};

/// The point in one row, with what `options` ask for. Errors: corruption.
Result<Point> point_in_row(const Segment& segment, RowId row, const CollectionOptions& collection,
                           const GetOptions& options, AnswerAccount* account = nullptr);

/// The live point `id`, if there is one. Cost: one lookup per segment, newest first.
Result<std::optional<Point>> read_point(const View& view, const CollectionOptions& collection,
                                        const PointId& id, const GetOptions& options,
                                        AnswerAccount* account = nullptr);

/// Errors: invalid_argument (bad filter, cursor of the wrong kind), deadline_exceeded. Cost: a
/// merge of the sealed segments from the cursor on; open rows are sorted for each page.
Result<ListPage> list_points(const View& view, const CollectionOptions& collection,
                             const ListRequest& request, ScanDeadline& limit,
                             AnswerAccount* account = nullptr);

/// Errors: invalid_argument (bad filter), deadline_exceeded.
Result<uint64_t> count_matching(const View& view, const Filter& filter, ScanDeadline& limit);

/// Ids of the live points that match, in no particular order. Errors: as count_matching.
Result<std::vector<PointId>> matching_ids(const View& view, IdType id_type, const Filter& filter,
                                          ScanDeadline& limit);

}  // namespace aionbd
