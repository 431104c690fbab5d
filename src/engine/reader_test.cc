// Scans that run out of time.
#include "engine/reader.h"

#include <gtest/gtest.h>

#include "engine/budget.h"
#include "engine/open_segment.h"
#include "payload/payload.h"

namespace aionbd {
namespace {

/// A second later at every look.
class TickingClock : public Clock {
 public:
  MonotonicTime now() const override { return start_ + std::chrono::seconds(looks_++); }
  Deadline after_looks(int looks) const {
    return start_ + std::chrono::seconds(looks) - std::chrono::milliseconds(500);
  }
  int looks() const { return looks_; }

 private:
  MonotonicTime start_{std::chrono::seconds(1)};
  mutable int looks_ = 0;
};

class ReaderTest : public testing::Test {
 protected:
  static constexpr RowId kRows = 5 * ScanDeadline::kRowsPerLook / 2;

  ReaderTest() {
    collection_.dimension = 1;
    const float value = 1;
    const std::string payload = encode_payload({{"a", Value(uint64_t{1})}}).value();
    for (RowId row = 0; row < kRows; ++row) {
      segment_->append(PointId(uint64_t{row}), reinterpret_cast<const std::byte*>(&value),
                       as_bytes_of(payload));
    }
    view_.segments.push_back({segment_, kRows, std::make_shared<const DeadRows>(), 0});
    view_.points = kRows;
  }

  MemoryBudget budget_{0};
  std::shared_ptr<OpenSegment> segment_ =
      std::make_shared<OpenSegment>(1, 1, IdType::kU64, &budget_);
  CollectionOptions collection_;
  View view_;
  Filter all_;
};

TEST_F(ReaderTest, EveryScanEndsAtItsDeadline) {
  {
    TickingClock clock;
    ScanDeadline limit(clock, clock.after_looks(2));
    EXPECT_EQ(count_matching(view_, all_, limit).error().code(), Code::kDeadlineExceeded);
    EXPECT_EQ(clock.looks(), 3);
  }
  {
    TickingClock clock;
    ScanDeadline limit(clock, clock.after_looks(2));
    const auto ids = matching_ids(view_, IdType::kU64, all_, limit);
    EXPECT_EQ(ids.error().code(), Code::kDeadlineExceeded);
  }
  // Open rows are read twice to be listed: sorted, then visited.
  for (const int looks : {2, 4}) {
    TickingClock clock;
    ScanDeadline limit(clock, clock.after_looks(looks));
    ListRequest request;
    request.limit = kRows;
    const auto page = list_points(view_, collection_, request, limit);
    EXPECT_EQ(page.error().code(), Code::kDeadlineExceeded) << looks;
    EXPECT_EQ(clock.looks(), looks + 1);
  }
}

TEST_F(ReaderTest, AScanWithTimeLeftIsWhole) {
  TickingClock clock;
  ScanDeadline limit(clock, clock.after_looks(100));
  EXPECT_EQ(count_matching(view_, all_, limit).value(), kRows);
  EXPECT_EQ(matching_ids(view_, IdType::kU64, all_, limit).value().size(), kRows);
  ListRequest request;
  request.limit = kRows;
  EXPECT_EQ(list_points(view_, collection_, request, limit).value().points.size(), kRows);

  TickingClock unread;
  ScanDeadline none(unread, kNoDeadline);
  EXPECT_EQ(count_matching(view_, all_, none).value(), kRows);
  EXPECT_EQ(unread.looks(), 0);
}

TEST_F(ReaderTest, DeadRowsTakeTimeToo) {
  std::vector<RowId> rows;
  for (RowId row = 0; row < kRows; ++row) rows.push_back(row);
  rows.pop_back();
  view_.segments[0].dead = std::make_shared<const DeadRows>(DeadRows().with(rows));
  TickingClock clock;
  ScanDeadline limit(clock, clock.after_looks(2));
  EXPECT_EQ(count_matching(view_, all_, limit).error().code(), Code::kDeadlineExceeded);
}

}  // namespace
}  // namespace aionbd
