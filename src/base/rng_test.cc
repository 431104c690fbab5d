#include "base/rng.h"

#include <gtest/gtest.h>

#include <array>

namespace aionbd {
namespace {

// Seeds appear in bug reports and in index files, so the sequence may never change.
TEST(Rng, IsSplitMix64) {
  Rng rng(1234567);  // reference values of the published algorithm
  for (const uint64_t want :
       {6457827717110365317U, 3203168211198807973U, 9817491932198370423U, 4593380528125082431U}) {
    EXPECT_EQ(rng.next(), want);
  }
}

TEST(Rng, BelowAndUniformStayInRangeAndReachAll) {
  Rng rng(9);
  std::array<int, 10> seen{};
  for (int i = 0; i < 10000; ++i) {
    ++seen.at(rng.below(10));
    const double u = rng.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
  }
  for (const int times : seen) EXPECT_NEAR(times, 1000, 150);  // five standard deviations
  EXPECT_EQ(rng.below(1), 0U);
}

TEST(Rng, ChanceIsAsGiven) {
  Rng rng(10);
  int hits = 0;
  for (int i = 0; i < 10000; ++i) hits += rng.chance(0.25);
  EXPECT_NEAR(hits, 2500, 220);
  EXPECT_FALSE(rng.chance(0.0));
  EXPECT_TRUE(rng.chance(1.0));
}

TEST(Rng, EntropySeedsDiffer) {
  EXPECT_NE(entropy_seed(), entropy_seed());
}

}  // namespace
}  // namespace aionbd
