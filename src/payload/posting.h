// Postings: the stored form of a set of rows, and what is computed from it without making a set.
//
// A posting is the portable serialisation of a Roaring bitmap (its public format specification),
// which is fixed for all versions and machines; docs/format.md, "Field indexes", repeats what we
// use of it. The library trusts the content of what it loads (counts that are too small make it
// write out of bounds), so every container is checked here before the library sees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "payload/row_set.h"

namespace aionbd {

/// Rows that share the upper 16 bits: what one container of a posting holds.
inline constexpr uint64_t kChunkRows = 65536;

/// The bitmap behind a set, for this file and that of RowSet.
/// Thread safety: no state.
class RowSetAccess {
 public:
  /// Takes over `bitmap`.
  static RowSet adopt(roaring_bitmap_s* bitmap);
  /// Null: empty.
  static roaring_bitmap_s* bitmap(RowSet* set);
  static const roaring_bitmap_s* bitmap(const RowSet& set);
};

/// Rows added in ascending order, kept as runs.
/// Thread safety: single owner.
class RowRuns {
 public:
  /// REQUIRES: no lower than the row before. The same again changes nothing.
  void add(uint32_t row) {
    if (!runs_.empty()) {
      Run& last = runs_.back();
      if (row == last.last) return;
      if (row == last.last + 1) {
        last.last = row;
        return;
      }
    }
    runs_.push_back({row, row});
  }
  size_t memory_bytes() const { return runs_.capacity() * sizeof(Run); }
  RowSet to_set() const;

 private:
  struct Run {
    uint32_t first;
    uint32_t last;
  };
  std::vector<Run> runs_;
};

/// The posting of a set that is not empty, in as few bytes as the format allows.
std::string write_posting(RowSet set);

/// The set of a posting that holds exactly `count` rows, all below `rows`; none if it does not.
/// Cost: one pass to check it and one to copy it; 14 us for 100000 of 1000000 rows.
std::optional<RowSet> read_posting(Bytes posting, uint64_t rows, uint64_t count);

/// Bit by bit into `words`, as RowSet::to_bitset.
void write_bitset(const RowSet& set, std::span<uint64_t> words);

/// One bit per row: for the union of many postings, and of rows in no order.
/// Thread safety: single owner.
class DenseRows {
 public:
  explicit DenseRows(uint64_t rows);

  /// False, and nothing changed, when the row is not one.
  bool add(uint32_t row) {
    if (row >= rows_) return false;
    words_[row / 64] |= uint64_t{1} << (row % 64);
    return true;
  }
  /// False when the posting is damaged; some of its rows may have been added.
  bool add_posting(Bytes posting);
  RowSet to_set() const;

 private:
  uint64_t rows_;
  std::vector<uint64_t> words_;  // whole chunks
};

}  // namespace aionbd
