#include "base/published.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace aionbd {
namespace {

TEST(Published, StartsEmptyOrWithItsValue) {
  EXPECT_EQ(Published<int>().get(), nullptr);
  EXPECT_EQ(*Published<int>(std::make_shared<int>(4)).get(), 4);
}

TEST(Published, ReaderKeepsWhatItTook) {
  Published<int> published(std::make_shared<int>(1));
  const auto old = published.get();
  published.set(std::make_shared<int>(2));
  EXPECT_EQ(*old, 1);
  EXPECT_EQ(*published.get(), 2);
  EXPECT_EQ(old.use_count(), 1);
}

TEST(Published, OldValueDiesOutsideTheLock) {
  struct Last {
    std::function<void()> on_death;
    ~Last() { on_death(); }
  };
  Published<Last> published;
  bool died = false;
  auto first = std::make_shared<Last>();
  first->on_death = [&] {
    published.get();  // would never return if the lock were held
    died = true;
  };
  published.set(std::move(first));
  published.set(nullptr);
  EXPECT_TRUE(died);
}

TEST(Published, ReadersSeeWholeValuesInOrder) {
  struct Pair {
    uint64_t a, b;
  };
  Published<Pair> published(std::make_shared<Pair>(Pair{0, 0}));
  std::atomic<bool> stop{false};
  std::atomic<int> faults{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      uint64_t last = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        const auto pair = published.get();
        if (pair->a != pair->b || pair->a < last) ++faults;
        last = pair->a;
      }
    });
  }
  for (uint64_t i = 1; i <= 20000; ++i) published.set(std::make_shared<Pair>(Pair{i, i}));
  stop = true;
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(faults, 0);
}

}  // namespace
}  // namespace aionbd
