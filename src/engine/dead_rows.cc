// Copy-on-write of the chunks of a set of dead rows.
#include "engine/dead_rows.h"

#include <algorithm>

namespace aionbd {

DeadRows DeadRows::with(std::span<const RowId> rows) const {
  DeadRows out = *this;
  std::vector<RowId> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end());
  size_t i = 0;
  while (i < sorted.size()) {
    const size_t c = sorted[i] / kChunkRows;
    if (c >= out.chunks_.size()) out.chunks_.resize(c + 1);
    auto chunk = out.chunks_[c] != nullptr ? std::make_shared<Chunk>(*out.chunks_[c])
                                           : std::make_shared<Chunk>(Chunk{});
    for (; i < sorted.size() && sorted[i] / kChunkRows == c; ++i) {
      const size_t bit = sorted[i] % kChunkRows;
      uint64_t& word = (*chunk)[bit / 64];
      const uint64_t mask = uint64_t{1} << (bit % 64);
      if ((word & mask) == 0) ++out.count_;
      word |= mask;
    }
    out.chunks_[c] = std::move(chunk);
  }
  return out;
}

}  // namespace aionbd
