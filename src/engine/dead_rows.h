// The set of dead rows of one segment, as an immutable value: adding rows makes a new set that
// shares all untouched chunks with the old one.
//
// A view holds one per segment, so a reader's picture of what is deleted never moves under it, and
// a write that kills d rows costs d chunk copies (512 bytes each) at most.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/row.h"

namespace aionbd {

/// Thread safety: immutable.
class DeadRows {
 public:
  static constexpr size_t kChunkRows = 4096;  // 512 bytes: eight cache lines to copy per kill

  DeadRows() = default;

  bool contains(RowId row) const {
    const size_t chunk = row / kChunkRows;
    if (chunk >= chunks_.size() || chunks_[chunk] == nullptr) return false;
    const size_t bit = row % kChunkRows;
    return (((*chunks_[chunk])[bit / 64] >> (bit % 64)) & 1) != 0;
  }
  uint64_t count() const { return count_; }

  /// This set and `rows` (any order, repeats allowed). Cost: O(chunks + rows log rows).
  DeadRows with(std::span<const RowId> rows) const;

  /// Calls visit(row) for each row that is in this set and not in `older`, ascending.
  /// REQUIRES: older is a subset of this.
  template <typename Visit>
  void for_each_added(const DeadRows& older, Visit visit) const {
    for (size_t c = 0; c < chunks_.size(); ++c) {
      const Chunk* before = c < older.chunks_.size() ? older.chunks_[c].get() : nullptr;
      if (chunks_[c] == nullptr || chunks_[c].get() == before) continue;
      for (size_t w = 0; w < chunks_[c]->size(); ++w) {
        uint64_t word = (*chunks_[c])[w] & ~(before != nullptr ? (*before)[w] : 0);
        for (; word != 0; word &= word - 1) {
          const auto bit = static_cast<size_t>(__builtin_ctzll(word));
          visit(static_cast<RowId>(c * kChunkRows + w * 64 + bit));
        }
      }
    }
  }

 private:
  using Chunk = std::array<uint64_t, kChunkRows / 64>;

  std::vector<std::shared_ptr<const Chunk>> chunks_;  // null: no dead row in it
  uint64_t count_ = 0;
};

}  // namespace aionbd
