#include "base/mutex.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace aionbd {
namespace {

TEST(Mutex, LockMayBeReleasedAndTakenAgain) {
  Mutex mutex;
  int shared = 0;  // not atomic: the thread sanitizer watches
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        MutexLock lock(mutex);
        ++shared;
        lock.unlock();
        if (i % 2 == 0) continue;  // the destructor must not unlock twice
        lock.lock();
        ++shared;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(shared, 6000);
}

TEST(CondVar, HoldsTheMutexAgainAfterWaiting) {
  Mutex mutex;
  CondVar changed;
  int turn = 0;
  const auto play = [&](int mine) {
    for (int i = 0; i < 500; ++i) {
      MutexLock lock(mutex);
      while (turn % 2 != mine) changed.wait(mutex);
      ++turn;
      changed.notify_one();
    }
  };
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  EXPECT_EQ(turn, 1000);
}

TEST(CondVar, WaitUntilTellsThatTimePassed) {
  Mutex mutex;
  CondVar never;
  MutexLock lock(mutex);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  while (never.wait_until(mutex, deadline)) {
  }
  EXPECT_GE(std::chrono::steady_clock::now(), deadline);
}

}  // namespace
}  // namespace aionbd
