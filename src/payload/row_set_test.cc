#include "payload/row_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "base/rng.h"
#include "payload/posting.h"

namespace aionbd {
namespace {

constexpr uint64_t kRows = 300000;  // five chunks, the last one partial

/// Sets of every container kind: sparse, dense, runs, all, none.
std::vector<uint32_t> random_rows(Rng* rng) {
  std::vector<uint32_t> rows;
  switch (rng->below(6)) {
    case 0: break;
    case 1:
      for (uint64_t left = rng->below(50); left > 0; --left) {
        rows.push_back(static_cast<uint32_t>(rng->below(kRows)));
      }
      break;
    case 2:
    case 3: {
      const double density = rng->uniform();
      for (uint32_t row = 0; row < kRows; ++row) {
        if (rng->chance(density)) rows.push_back(row);
      }
      break;
    }
    case 4: {
      auto row = static_cast<uint32_t>(rng->below(1000));
      while (row < kRows) {
        const auto end = std::min<uint64_t>(kRows, row + 1 + rng->below(30000));
        for (; row < end; ++row) rows.push_back(row);
        row += 1 + static_cast<uint32_t>(rng->below(30000));
      }
      break;
    }
    default:
      for (uint32_t row = 0; row < kRows; ++row) rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

std::vector<uint32_t> rows_of(const RowSet& set) {
  std::vector<uint32_t> rows;
  set.for_each([&](uint32_t row) { rows.push_back(row); });
  return rows;
}

TEST(RowSet, EmptyAndAll) {
  const RowSet empty;
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(empty.count(), 0U);
  EXPECT_FALSE(empty.contains(0));
  EXPECT_EQ(empty, RowSet::all(0));
  const RowSet all = RowSet::all(70000);
  EXPECT_EQ(all.count(), 70000U);
  EXPECT_TRUE(all.contains(69999));
  EXPECT_FALSE(all.contains(70000));
  EXPECT_EQ(RowSet::all(uint64_t{1} << 32).count(), uint64_t{1} << 32);
  EXPECT_LT(RowSet::all(kRows).memory_bytes(), 1000U);
}

TEST(RowSet, OperationsAreThoseOfSets) {
  Rng rng(1);
  for (int round = 0; round < 30; ++round) {
    const auto a = random_rows(&rng);
    const auto b = random_rows(&rng);
    const RowSet set_a = RowSet::of(a);
    const RowSet set_b = RowSet::of(b);
    EXPECT_EQ(set_a.count(), a.size());
    EXPECT_EQ(set_a == set_b, a == b);
    EXPECT_EQ(rows_of(set_a), a);
    std::vector<uint32_t> wanted;
    RowSet set = set_a;
    set.and_with(set_b);
    std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(wanted));
    EXPECT_EQ(rows_of(set), wanted);
    EXPECT_EQ(set.empty(), wanted.empty());
    wanted.clear();
    set = set_a;
    set.or_with(set_b);
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(wanted));
    EXPECT_EQ(rows_of(set), wanted);
    wanted.clear();
    set = set_a;
    set.and_not_with(set_b);
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(wanted));
    EXPECT_EQ(rows_of(set), wanted);
    EXPECT_EQ(set.empty(), wanted.empty());
    EXPECT_EQ(rows_of(set_a), a) << "an operand changed";
  }
}

TEST(RowSet, WithItself) {
  RowSet set = RowSet::of(std::vector<uint32_t>{3, 70000, 1});
  RowSet& same = set;
  set.and_with(same);
  set.or_with(same);
  EXPECT_EQ(rows_of(set), (std::vector<uint32_t>{1, 3, 70000}));
  set.and_not_with(same);
  EXPECT_TRUE(set.empty());
}

TEST(RowSet, BitsetOfAnyLength) {
  Rng rng(2);
  for (int round = 0; round < 40; ++round) {
    const auto rows = random_rows(&rng);
    std::vector<uint64_t> wanted(rng.below(kRows / 64 + 2000));
    for (const uint32_t row : rows) {
      if (row / 64 < wanted.size()) wanted[row / 64] |= uint64_t{1} << (row % 64);
    }
    std::vector<uint64_t> words(wanted.size(), ~uint64_t{0});
    RowSet::of(rows).to_bitset(words);
    EXPECT_EQ(words, wanted);
  }
}

TEST(RowSet, CursorReadsBlocksAndSeeks) {
  const RowSet none;
  std::vector<uint32_t> block(7);
  RowSet::Cursor nothing(none);
  nothing.seek(5);
  EXPECT_EQ(nothing.next(block), 0U);

  std::vector<uint32_t> rows;
  for (uint32_t row = 0; row < 200000; row += 3) rows.push_back(row);
  const RowSet set = RowSet::of(rows);
  RowSet::Cursor cursor(set);
  std::vector<uint32_t> read;
  for (size_t count = block.size(); count == block.size();) {
    count = cursor.next(block);
    read.insert(read.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(count));
  }
  EXPECT_EQ(read, rows);
  EXPECT_EQ(cursor.next(block), 0U);
  cursor.seek(100001);
  ASSERT_EQ(cursor.next(block), block.size());
  EXPECT_EQ(block[0], 100002U);
  cursor.seek(1);
  ASSERT_EQ(cursor.next(block), block.size());
  EXPECT_EQ(block[0], 3U);
  cursor.seek(199999);
  EXPECT_EQ(cursor.next(block), 0U);
}

// ---- Postings -----------------------------------------------------------------------------------

TEST(Posting, RoundTripsEveryKindOfSet) {
  Rng rng(3);
  for (int round = 0; round < 30; ++round) {
    const auto rows = random_rows(&rng);
    if (rows.empty()) continue;
    RowRuns runs;
    for (const uint32_t row : rows) runs.add(row);
    EXPECT_EQ(rows_of(runs.to_set()), rows);
    const std::string posting = write_posting(RowSet::of(rows));
    const auto set = read_posting(as_bytes_of(posting), kRows, rows.size());
    ASSERT_TRUE(set.has_value());
    EXPECT_EQ(rows_of(*set), rows);
    EXPECT_FALSE(read_posting(as_bytes_of(posting), kRows, rows.size() + 1).has_value());
    EXPECT_FALSE(read_posting(as_bytes_of(posting), rows.back(), rows.size()).has_value());
    EXPECT_TRUE(read_posting(as_bytes_of(posting), rows.back() + 1, rows.size()).has_value());
    DenseRows dense(kRows);
    ASSERT_TRUE(dense.add_posting(as_bytes_of(posting)));
    EXPECT_EQ(rows_of(dense.to_set()), rows);
    EXPECT_FALSE(DenseRows(rows.back()).add_posting(as_bytes_of(posting)));
  }
}

TEST(Posting, ChangedBytesAreRefusedOrAnotherSet) {
  Rng rng(4);
  for (int round = 0; round < 100; ++round) {
    const auto rows = random_rows(&rng);
    if (rows.empty()) continue;
    const std::string posting = write_posting(RowSet::of(rows));
    for (int change = 0; change < 20; ++change) {
      std::string changed = posting;
      // The head holds the counts that the library would trust.
      const size_t span = rng.below(2) == 0 ? std::min<size_t>(64, changed.size()) : changed.size();
      changed[rng.below(span)] ^= static_cast<char>(1U << rng.below(8));
      if (rng.below(4) == 0) changed.resize(rng.below(changed.size()));
      const auto set = read_posting(as_bytes_of(changed), kRows, rows.size());
      DenseRows dense(kRows);
      const bool added = dense.add_posting(as_bytes_of(changed));
      const RowSet from_dense = dense.to_set();
      if (!set) continue;
      EXPECT_TRUE(added);
      EXPECT_EQ(set->count(), rows.size());
      EXPECT_EQ(rows_of(*set), rows_of(from_dense));
    }
  }
}

TEST(Posting, AddsLateRowsOnly) {
  DenseRows dense(100);
  EXPECT_TRUE(dense.add(99));
  EXPECT_FALSE(dense.add(100));
  EXPECT_FALSE(dense.add(UINT32_MAX));
  EXPECT_EQ(rows_of(dense.to_set()), std::vector<uint32_t>{99});
}

}  // namespace
}  // namespace aionbd
