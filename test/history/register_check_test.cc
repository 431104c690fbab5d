// The checker itself: what is fine passes, each kind of anomaly is found.
#include "test/history/register_check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"

namespace aionbd {
namespace {

RegisterCall write(uint64_t value, uint64_t called, uint64_t returned = kNeverReturned) {
  return {true, value, called, returned};
}
RegisterCall read(uint64_t value, uint64_t called, uint64_t returned) {
  return {false, value, called, returned};
}

TEST(RegisterCheckTest, OneAfterTheOther) {
  EXPECT_EQ(check_register({}, 0), Verdict::kLinearizable);
  EXPECT_EQ(check_register({read(0, 1, 2), write(7, 3, 4), read(7, 5, 6)}, 0),
            Verdict::kLinearizable);
  EXPECT_EQ(check_register({read(5, 1, 2)}, 0), Verdict::kNot);
}

TEST(RegisterCheckTest, CallsAtOnceMayHaveEitherOrder) {
  EXPECT_EQ(check_register({write(1, 1, 5), read(0, 2, 3), read(1, 4, 6)}, 0),
            Verdict::kLinearizable);
  EXPECT_EQ(check_register({write(1, 1, 9), write(2, 2, 8), read(2, 3, 4), read(1, 5, 6)}, 0),
            Verdict::kLinearizable);
}

TEST(RegisterCheckTest, StaleReadIsFound) {
  EXPECT_EQ(check_register({write(1, 1, 2), read(0, 3, 4)}, 0), Verdict::kNot);
}

TEST(RegisterCheckTest, ValueThatComesAndGoesIsFound) {
  EXPECT_EQ(check_register({write(1, 1, 9), read(1, 2, 3), read(0, 4, 5)}, 0), Verdict::kNot);
}

TEST(RegisterCheckTest, LostWriteIsFound) {
  EXPECT_EQ(check_register({write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)}, 0), Verdict::kNot);
}

TEST(RegisterCheckTest, ReadersThatDisagreeAboutTheOrderAreFound) {
  const std::vector<RegisterCall> history = {write(1, 1, 20), write(2, 2, 21), read(1, 3, 4),
                                             read(2, 5, 6), read(1, 7, 8)};
  EXPECT_EQ(check_register(history, 0), Verdict::kNot);
}

TEST(RegisterCheckTest, AWriteOfUnknownOutcomeMayHappenLateOrNever) {
  EXPECT_EQ(check_register({write(1, 1), read(0, 2, 3)}, 0), Verdict::kLinearizable);
  EXPECT_EQ(check_register({write(1, 1), read(0, 2, 3), read(1, 4, 5)}, 0), Verdict::kLinearizable);
  EXPECT_EQ(check_register({write(1, 1), read(1, 2, 3), read(0, 4, 5)}, 0), Verdict::kNot);
}

TEST(RegisterCheckTest, GivesUpInsteadOfTakingForEver) {
  std::vector<RegisterCall> history;
  for (uint64_t i = 1; i <= 30; ++i) history.push_back(write(i, i, 1000 + i));
  history.push_back(read(99, 100, 101));
  EXPECT_EQ(check_register(history, 0, 10000), Verdict::kGaveUp);
}

/// A register that is right, driven by overlapping calls: each takes effect at a moment of its own.
std::vector<RegisterCall> true_history(Rng& rng, size_t calls) {
  struct Moment {
    uint64_t time;
    size_t call;
  };
  std::vector<RegisterCall> out;
  std::vector<Moment> moments;
  for (size_t i = 0; i < calls; ++i) {
    const uint64_t called = 10 * i + rng.below(10);
    const uint64_t returned = called + 1 + rng.below(60);
    out.push_back({rng.chance(0.5), i + 1, called, returned});
    moments.push_back({called + rng.below(returned - called + 1), i});
  }
  std::stable_sort(moments.begin(), moments.end(),
                   [](const Moment& a, const Moment& b) { return a.time < b.time; });
  uint64_t value = 0;
  for (const Moment& moment : moments) {
    if (out[moment.call].is_write) value = out[moment.call].value;
    out[moment.call].value = value;
  }
  return out;
}

TEST(RegisterCheckTest, RandomHistoriesOfATrueRegisterPassAndAChangedReadDoesNot) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    std::vector<RegisterCall> history = true_history(rng, 60);
    ASSERT_EQ(check_register(history, 0), Verdict::kLinearizable) << "seed " << seed;
    // A read from before the first write's call, of a value written long after.
    for (RegisterCall& call : history) {
      if (call.is_write) continue;
      call.value = 60;
      if (!history[59].is_write || history[59].called <= call.returned) break;
      ASSERT_EQ(check_register(history, 0), Verdict::kNot) << "seed " << seed;
      break;
    }
  }
}

}  // namespace
}  // namespace aionbd
