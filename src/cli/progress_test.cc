#include "cli/progress.h"

#include <gtest/gtest.h>

namespace aionbd {
namespace {

TEST(ProgressTest, NumbersForPeople) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(1000), "1,000");
  EXPECT_EQ(with_thousands(UINT64_MAX), "18,446,744,073,709,551,615");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_seconds(59), "59 s");
  EXPECT_EQ(human_seconds(61), "1 min 01 s");
  EXPECT_EQ(human_seconds(7383), "2 h 03 min");
}

TEST(ProgressTest, LineTellsShareRateAndWhatIsLeft) {
  ProgressState state;
  state.rows = 5000;
  state.bytes = 1U << 20;
  state.share = 0.25;
  EXPECT_EQ(progress_line(state, 10, 8),
            "[##......]  25 %  5,000 rows  500 rows/s  1.0 MiB  30 s left");
  state.refused = 2;
  state.share.reset();
  EXPECT_EQ(progress_line(state, 10, 8), "5,000 rows  500 rows/s  1.0 MiB  2 refused");
  state.counts_rows = false;
  EXPECT_EQ(progress_line(state, 2, 8), "1.0 MiB  512.0 KiB/s  2 refused");
  state.share = 7;  // a file that grew meanwhile
  EXPECT_TRUE(progress_line(state, 0, 4).starts_with("[####] 100 %"));
}

}  // namespace
}  // namespace aionbd
