#include "server/event_loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace aionbd {
namespace {

/// Two ends of a connection.
struct Pair {
  Pair() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    ours = Descriptor(ends[0]);
    theirs = Descriptor(ends[1]);
  }
  void say(char c) const { EXPECT_EQ(::send(theirs.number(), &c, 1, 0), 1); }
  Descriptor ours;
  Descriptor theirs;
};

TEST(EventLoopTest, GivesOneEventForEachWatch) {
  EventLoop loop;
  ASSERT_TRUE(loop.open().ok());
  const Pair one;
  const Pair other;
  ASSERT_TRUE(loop.watch(one.ours.number(), 1, Readiness::kToRead, false));
  one.say('a');
  EXPECT_EQ(loop.next().socket, 1U);
  // What arrives while it is not watched tells nobody; it is told when it is watched again.
  one.say('b');
  ASSERT_TRUE(loop.watch(other.ours.number(), 2, Readiness::kToWrite, false));
  EXPECT_EQ(loop.next().socket, 2U);
  ASSERT_TRUE(loop.watch(one.ours.number(), 1, Readiness::kToRead, true));
  EXPECT_EQ(loop.next().socket, 1U);
  loop.end();
  EXPECT_TRUE(loop.next().ended);
}

TEST(EventLoopTest, TellsOfAPeerThatLeft) {
  EventLoop loop;
  ASSERT_TRUE(loop.open().ok());
  Pair pair;
  ASSERT_TRUE(loop.watch(pair.ours.number(), 7, Readiness::kToRead, false));
  pair.theirs.close();
  EXPECT_EQ(loop.next().socket, 7U);
  EXPECT_FALSE(loop.watch(-1, 8, Readiness::kToRead, false));
}

// Each piece of work blocks its thread until all of them run: none may wait behind another.
TEST(EventLoopTest, WorkPostedInARowWakesAsManyThreads) {
  constexpr int kThreads = 4;
  for (int round = 0; round < 100; ++round) {
    EventLoop loop;
    ASSERT_TRUE(loop.open().ok());
    std::atomic<int> running{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        for (EventLoop::Event event = loop.next(); !event.ended; event = loop.next()) event.work();
      });
    }
    for (int i = 0; i < kThreads; ++i) {
      loop.post([&] {
        ++running;
        while (running.load() < kThreads) std::this_thread::yield();
      });
    }
    loop.end();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(running.load(), kThreads);
  }
}

TEST(EventLoopTest, WhatWasPostedIsTakenBeforeTheEnd) {
  EventLoop loop;
  ASSERT_TRUE(loop.open().ok());
  const auto kept = std::make_shared<int>(0);
  for (int i = 0; i < 3; ++i) loop.post([kept] { ++*kept; });
  loop.end();
  int taken = 0;
  for (EventLoop::Event event = loop.next(); !event.ended; event = loop.next()) {
    event.work();
    ++taken;
  }
  EXPECT_EQ(taken, 3);
  EXPECT_EQ(*kept, 3);
  EXPECT_TRUE(loop.next().ended);
}

}  // namespace
}  // namespace aionbd
