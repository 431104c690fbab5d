// A set of rows of one segment: what a filter's answer from the field index is made of.
//
// Behind it is a compressed bitmap (Lemire, Kai, Kaser: "Consistently faster and smaller compressed
// bitmaps with Roaring", 2016), whose library is known to row_set.cc and the index alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct roaring_bitmap_s;  // of the Roaring library

namespace aionbd {

/// Row numbers below 2^32, each at most once. Takes at most about 2 bytes per row or one bit per
/// row of the segment, whichever is less, and far less for runs.
/// Thread safety: compatible.
class RowSet {
 public:
  /// The empty set. No allocation before the first row.
  RowSet() = default;
  /// All rows below `rows`. REQUIRES: rows <= 2^32.
  static RowSet all(uint64_t rows);
  /// The rows given, in any order, repeated or not. Ascending ones are added faster.
  static RowSet of(std::span<const uint32_t> rows);

  RowSet(const RowSet& other);
  RowSet& operator=(const RowSet& other);
  RowSet(RowSet&&) noexcept = default;
  RowSet& operator=(RowSet&&) noexcept = default;
  ~RowSet() = default;

  /// Cost: one look per 65536 rows of the segment.
  uint64_t count() const;
  bool empty() const;
  bool contains(uint32_t row) const;
  bool operator==(const RowSet& other) const;

  /// Keep what is in both, in either, in this one only.
  void and_with(const RowSet& other);
  void or_with(const RowSet& other);
  void and_not_with(const RowSet& other);

  /// Bit `row % 64` of `words[row / 64]` becomes 1 for each row of the set, every other bit 0. Rows
  /// beyond the words are left out.
  void to_bitset(std::span<uint64_t> words) const;

  /// Calls `visit(row)` in ascending order.
  template <typename Visit>
  void for_each(const Visit& visit) const;

  /// Heap bytes held.
  size_t memory_bytes() const;

  /// Reads the set in ascending order, in blocks.
  /// Thread safety: single owner. The set must outlive it and stay as it is.
  class Cursor {
   public:
    explicit Cursor(const RowSet& set);
    ~Cursor();
    /// Fills `rows` from the front; the number filled is less than asked for only at the end of the
    /// set.
    size_t next(std::span<uint32_t> rows);
    /// What comes next is the first row not below `row`, also backwards.
    void seek(uint32_t row);

   private:
    struct State;
    std::unique_ptr<State> state_;  // null: the set has no rows
  };

 private:
  friend class RowSetAccess;  // the index's way to the bitmap
  struct Deleter {
    void operator()(roaring_bitmap_s* bitmap) const;
  };
  using Bitmap = std::unique_ptr<roaring_bitmap_s, Deleter>;
  explicit RowSet(Bitmap bitmap);

  Bitmap bitmap_;  // null: empty
};

template <typename Visit>
void RowSet::for_each(const Visit& visit) const {
  std::array<uint32_t, 256> rows;  // a block is 1 KiB of stack
  Cursor cursor(*this);
  for (size_t count = rows.size(); count == rows.size();) {
    count = cursor.next(rows);
    for (size_t i = 0; i < count; ++i) visit(rows[i]);
  }
}

}  // namespace aionbd
