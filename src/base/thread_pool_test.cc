#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace aionbd {
namespace {

TEST(ThreadPool, CallsEachIndexOnce) {
  for (const size_t helpers : {0U, 1U, 3U}) {
    ThreadPool pool(helpers);
    EXPECT_EQ(pool.helpers_count(), helpers);
    for (const size_t count : {0U, 1U, 2U, 1000U}) {
      std::vector<std::atomic<int>> calls(count);
      pool.for_each(count, [&](size_t i) { ++calls[i]; });
      for (const auto& each : calls) ASSERT_EQ(each, 1);
    }
  }
}

TEST(ThreadPool, WhatTheBodyWroteIsSeenAfterwards) {
  ThreadPool pool(3);
  for (int round = 0; round < 500; ++round) {
    std::vector<int> plain(16, -1);  // not atomic: the thread sanitizer watches
    pool.for_each(plain.size(), [&](size_t i) { plain[i] = round; });
    for (const int value : plain) ASSERT_EQ(value, round);
  }
}

TEST(ThreadPool, HelpersReallyHelp) {
  ThreadPool pool(1);
  std::atomic<int> waiting{0};
  // Each call waits for the other: with one thread this would never end.
  pool.for_each(2, [&](size_t) {
    ++waiting;
    while (waiting < 2) std::this_thread::yield();
  });
  EXPECT_EQ(waiting, 2);
}

TEST(ThreadPool, ABusyPoolDelaysNobody) {
  ThreadPool pool(1);
  std::atomic<int> started{0};
  std::atomic<bool> release{false};
  std::thread other([&] {
    pool.for_each(2, [&](size_t) {
      ++started;
      while (!release) std::this_thread::yield();
    });
  });
  while (started < 2) std::this_thread::yield();  // the caller and the one helper are both held
  std::atomic<int> calls{0};
  pool.for_each(10, [&](size_t) { ++calls; });
  EXPECT_EQ(calls, 10);
  release = true;
  other.join();
}

TEST(ThreadPool, ConcurrentAndNestedCallers) {
  ThreadPool pool(2);
  std::atomic<uint64_t> sum{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        pool.for_each(8, [&](size_t i) { pool.for_each(4, [&](size_t j) { sum += i * 4 + j; }); });
      }
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum, 4U * 100U * (31U * 32U / 2U));
}

TEST(ThreadPool, DiesWhileHelpersAreStillWakingUp) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(2);
    std::atomic<int> calls{0};
    pool.for_each(3, [&](size_t) { ++calls; });
    ASSERT_EQ(calls, 3);
  }
}

}  // namespace
}  // namespace aionbd
