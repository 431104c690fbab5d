#include "base/check.h"

#include <gtest/gtest.h>

namespace aionbd {
namespace {

TEST(Check, PassesSilentlyAndEvaluatesOnce) {
  int calls = 0;
  const auto next = [&] { return ++calls; };
  CHECK_EQ(next(), 1);
  CHECK_TRUE(next() == 2);
  EXPECT_EQ(calls, 2);
}

TEST(CheckDeathTest, PrintsPlaceAndBothOperands) {
  const size_t rows = 3;
  EXPECT_DEATH(CHECK_LT(rows + 1, rows), "check_test.cc:.*rows \\+ 1 < rows \\(4 vs 3\\)");
  EXPECT_DEATH(CHECK_TRUE(rows == 4), "check failed: rows == 4");
}

}  // namespace
}  // namespace aionbd
