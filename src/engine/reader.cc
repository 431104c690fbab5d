#include "engine/reader.h"

#include <algorithm>
#include <queue>

#include "engine/sealed_segment.h"
#include "engine/wanted_rows.h"
#include "payload/filter.h"
#include "payload/payload.h"

namespace aionbd {

Result<Point> point_in_row(const Segment& segment, RowId row, const CollectionOptions& collection,
                           const GetOptions& options, AnswerAccount* account) {
  Point out;
  uint64_t bytes = kAnswerBytesPerPoint;
  ASSIGN_OR_RETURN(const Bytes id, segment.id_bytes(row));
  out.id = point_id_of(collection.id_type, id);
  if (options.include_payload) {
    ASSIGN_OR_RETURN(const Bytes payload, segment.payload(row));
    bytes += payload.size() * kAnswerBytesPerPayloadByte;
    if (account != nullptr) RETURN_IF_ERROR(account->add(bytes));
    out.payload = decode_payload(payload);
    bytes = 0;
  }
  if (options.include_values) bytes += collection.dimension * kAnswerBytesPerValue;
  if (account != nullptr) RETURN_IF_ERROR(account->add(bytes));
  if (options.include_values) {
    out.values.resize(collection.dimension);
    if (segment.residency() != Residency::kAll) {
      RETURN_IF_ERROR(segment.copy_rows(row, 1, out.values.data(), nullptr));
      return out;
    }
    ASSIGN_OR_RETURN(const RowBlock block, segment.rows(row, 1));
    block.values.copy(collection.dimension, out.values.data());
  }
  return out;
}

Result<std::optional<Point>> read_point(const View& view, const CollectionOptions& collection,
                                        const PointId& id, const GetOptions& options,
                                        AnswerAccount* account) {
  for (size_t i = view.segments.size(); i-- > 0;) {
    const SegmentView& part = view.segments[i];
    ASSIGN_OR_RETURN(const std::optional<RowId> row, part.segment->find(id, part.rows));
    if (!row || part.dead->contains(*row)) continue;
    ASSIGN_OR_RETURN(Point point, point_in_row(*part.segment, *row, collection, options, account));
    return std::optional<Point>(std::move(point));
  }
  return std::optional<Point>();
}

namespace {

/// Live rows of one segment after a cursor, in id order. Thread safety: single owner.
class IdCursor {
 public:
  static Result<IdCursor> make(const SegmentView& part, IdType id_type,
                               const std::optional<PointId>& after, ScanDeadline& limit) {
    IdCursor out(part, id_type, limit);
    if (const auto* sealed = dynamic_cast<const SealedSegment*>(part.segment.get())) {
      if (after) {
        ASSIGN_OR_RETURN(out.next_, sealed->lower_bound(*after));
      }
      out.limit_ = part.rows;
    } else {
      RETURN_IF_ERROR(out.sort_open_rows(after));
    }
    RETURN_IF_ERROR(out.advance(after));
    return out;
  }

  bool done() const { return done_; }
  const PointId& id() const { return id_; }
  RowId row() const { return row_; }
  const SegmentView& part() const { return *part_; }

  /// Moves to the next live row, beyond `after` if given.
  Status advance(const std::optional<PointId>& after = std::nullopt) {
    for (; next_ < limit_; ++next_) {
      RETURN_IF_ERROR(deadline_->next_row());
      const RowId row = sorted_.empty() ? static_cast<RowId>(next_) : sorted_[next_];
      if (part_->dead->contains(row)) continue;
      ASSIGN_OR_RETURN(const Bytes bytes, part_->segment->id_bytes(row));
      PointId id = point_id_of(id_type_, bytes);
      if (after && !(id > *after)) continue;
      id_ = std::move(id);
      row_ = row;
      ++next_;
      return {};
    }
    done_ = true;
    return {};
  }

 private:
  IdCursor(const SegmentView& part, IdType id_type, ScanDeadline& limit)
      : part_(&part), id_type_(id_type), deadline_(&limit) {}

  Status sort_open_rows(const std::optional<PointId>& after) {
    std::vector<std::pair<PointId, RowId>> rows;
    for (RowId row = 0; row < part_->rows; ++row) {
      RETURN_IF_ERROR(deadline_->next_row());
      if (part_->dead->contains(row)) continue;
      ASSIGN_OR_RETURN(const Bytes bytes, part_->segment->id_bytes(row));
      PointId id = point_id_of(id_type_, bytes);
      if (!after || id > *after) rows.emplace_back(std::move(id), row);
    }
    std::sort(rows.begin(), rows.end());
    for (const auto& [id, row] : rows) sorted_.push_back(row);
    limit_ = sorted_.size();
    return {};
  }

  const SegmentView* part_;
  IdType id_type_;
  ScanDeadline* deadline_;
  std::vector<RowId> sorted_;  // open segments only
  uint64_t next_ = 0;
  uint64_t limit_ = 0;
  PointId id_;
  RowId row_ = 0;
  bool done_ = false;
};

/// Calls visit(part, row, id) for live rows in id order until it returns false.
template <typename Visit>
Status for_each_in_id_order(const View& view, IdType id_type, const std::optional<PointId>& after,
                            ScanDeadline& limit, Visit visit) {
  std::vector<IdCursor> cursors;
  for (const SegmentView& part : view.segments) {
    if (part.live() == 0) continue;
    ASSIGN_OR_RETURN(IdCursor cursor, IdCursor::make(part, id_type, after, limit));
    if (!cursor.done()) cursors.push_back(std::move(cursor));
  }
  const auto later = [&](size_t a, size_t b) { return cursors[a].id() > cursors[b].id(); };
  std::priority_queue<size_t, std::vector<size_t>, decltype(later)> next(later);
  for (size_t i = 0; i < cursors.size(); ++i) next.push(i);
  while (!next.empty()) {
    const size_t i = next.top();
    next.pop();
    IdCursor& cursor = cursors[i];
    ASSIGN_OR_RETURN(const bool go_on, visit(cursor.part(), cursor.row(), cursor.id()));
    if (!go_on) return {};
    RETURN_IF_ERROR(cursor.advance());
    if (!cursor.done()) next.push(i);
  }
  return {};
}

/// Calls visit(part, row) for each live row that matches, in no particular order.
template <typename Visit>
Status for_each_match(const View& view, const CompiledFilter& filter, ScanDeadline& limit,
                      Visit visit) {
  for (const SegmentView& part : view.segments) {
    const WantedRows wanted(part, &filter);
    for (RowId row = wanted.next(0); row < part.rows; row = wanted.next(row + 1)) {
      RETURN_IF_ERROR(limit.next_row());
      ASSIGN_OR_RETURN(const bool matches, wanted.contains(row));
      if (matches) RETURN_IF_ERROR(visit(part, row));
    }
  }
  return {};
}

}  // namespace

Result<ListPage> list_points(const View& view, const CollectionOptions& collection,
                             const ListRequest& request, ScanDeadline& limit,
                             AnswerAccount* account) {
  if (request.after_id && request.after_id->type() != collection.id_type) {
    return invalid_argument("after_id must be of the collection's id type");
  }
  if (request.offset > kListOffsetMax) {
    return invalid_argument("offset must be at most " + std::to_string(kListOffsetMax) +
                            ", use after_id beyond it: got " + std::to_string(request.offset));
  }
  if (request.limit == 0) return invalid_argument("limit must be at least 1: got 0");
  std::optional<CompiledFilter> filter;
  if (request.filter != nullptr) {
    ASSIGN_OR_RETURN(filter, CompiledFilter::compile(*request.filter));
  }
  ListPage out;
  out.total = view.points;
  uint64_t skip = request.offset;
  const GetOptions options{request.include_payload, request.include_values};
  RETURN_IF_ERROR(for_each_in_id_order(
      view, collection.id_type, request.after_id, limit,
      [&](const SegmentView& part, RowId row, const PointId&) -> Result<bool> {
        if (filter) {
          ASSIGN_OR_RETURN(const Bytes payload, part.segment->payload(row));
          if (!filter->matches(payload)) return true;
        }
        if (skip > 0) {
          --skip;
          return true;
        }
        if (out.points.size() == request.limit) {
          out.more = true;
          return false;
        }
        ASSIGN_OR_RETURN(Point point,
                         point_in_row(*part.segment, row, collection, options, account));
        out.points.push_back(std::move(point));
        return true;
      }));
  return out;
}

Result<uint64_t> count_matching(const View& view, const Filter& filter, ScanDeadline& limit) {
  ASSIGN_OR_RETURN(const CompiledFilter compiled, CompiledFilter::compile(filter));
  uint64_t count = 0;
  RETURN_IF_ERROR(for_each_match(view, compiled, limit, [&](const SegmentView&, RowId) {
    ++count;
    return Status();
  }));
  return count;
}

Result<std::vector<PointId>> matching_ids(const View& view, IdType id_type, const Filter& filter,
                                          ScanDeadline& limit) {
  ASSIGN_OR_RETURN(const CompiledFilter compiled, CompiledFilter::compile(filter));
  std::vector<PointId> out;
  const auto take = [&](const SegmentView& part, RowId row) -> Status {
    ASSIGN_OR_RETURN(const Bytes id, part.segment->id_bytes(row));
    out.push_back(point_id_of(id_type, id));
    return {};
  };
  RETURN_IF_ERROR(for_each_match(view, compiled, limit, take));
  return out;
}

}  // namespace aionbd
