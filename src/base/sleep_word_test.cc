#include "base/sleep_word.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

namespace aionbd {
namespace {

TEST(SleepWordTest, SleepsUntilAnotherThreadSetsIt) {
  SleepWord word(0);
  std::atomic<bool> set = false;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    set = true;
    word.set_and_wake(7);
  });
  word.sleep_while(0);
  EXPECT_TRUE(set);
  EXPECT_EQ(word.get(), 7u);
  other.join();
}

TEST(SleepWordTest, DoesNotSleepOnAnotherValue) {
  SleepWord word(1);
  word.sleep_while(0);
  EXPECT_EQ(word.get(), 1u);
}

// The life of a waiter in the log: on the stack of the thread that sleeps, gone once it is told.
TEST(SleepWordTest, MayEndAsSoonAsItIsSet) {
  for (int round = 0; round < 1000; ++round) {
    auto word = std::make_unique<SleepWord>(0);
    std::thread setter([at = word.get()] { at->set_and_wake(1); });
    word->sleep_while(0);
    word.reset();
    setter.join();
  }
}

}  // namespace
}  // namespace aionbd
