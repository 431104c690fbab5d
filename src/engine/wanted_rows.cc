#include "engine/wanted_rows.h"

#include <bit>

#include "payload/row_set.h"

namespace aionbd {

WantedRows::WantedRows(const SegmentView& part, const CompiledFilter* filter)
    : part_(&part), filter_(filter), check_payload_(filter != nullptr), most_(part.live()) {
  if (filter == nullptr || most_ == 0) return;
  const std::shared_ptr<const FieldIndex> index = part.segment->field_index();
  if (index == nullptr) return;
  indexed_ = true;
  const IndexAnswer answer = filter->evaluate(*index);
  check_payload_ = !answer.exact;
  words_.assign((size_t{part.rows} + 63) / 64, 0);
  answer.upper.to_bitset(words_);
  part.dead->for_each_added(DeadRows(), [&](RowId row) {
    if (row < part.rows) words_[row / 64] &= ~(uint64_t{1} << (row % 64));
  });
  if (part.rows % 64 != 0) words_.back() &= (uint64_t{1} << (part.rows % 64)) - 1;
  most_ = 0;
  for (const uint64_t word : words_) most_ += static_cast<uint64_t>(std::popcount(word));
}

Result<bool> WantedRows::contains(RowId row) const {
  if (indexed_) {
    if ((words_[row / 64] >> (row % 64) & 1) == 0) return false;
  } else if (part_->dead->contains(row)) {
    return false;
  }
  if (!check_payload_) return true;
  ASSIGN_OR_RETURN(const Bytes payload, part_->segment->payload(row));
  return filter_->matches(payload);
}

Result<size_t> WantedRows::select(RowId first, size_t count, RowId* rows) const {
  size_t n = 0;
  const auto end = first + static_cast<RowId>(count);
  for (RowId row = next(first); row < end; row = next(row + 1)) {
    ASSIGN_OR_RETURN(const bool wanted, contains(row));
    rows[n] = row;
    n += wanted ? 1 : 0;
  }
  return n;
}

size_t WantedRows::most_of(RowId first, size_t count) const {
  if (!indexed_) return count;
  size_t n = 0;
  const uint64_t end = uint64_t{first} + count;
  for (uint64_t row = first; row < end;) {
    const uint64_t until = std::min(end, (row / 64 + 1) * 64);
    uint64_t word = words_[row / 64] >> (row % 64);
    if (until - row < 64) word &= (uint64_t{1} << (until - row)) - 1;
    n += static_cast<size_t>(std::popcount(word));
    row = until;
  }
  return n;
}

RowId WantedRows::next(RowId row) const {
  if (!indexed_) return row;
  for (; row < part_->rows; row = (row / 64 + 1) * 64) {
    const uint64_t word = words_[row / 64] >> (row % 64);
    if (word != 0) return row + static_cast<RowId>(std::countr_zero(word));
  }
  return part_->rows;
}

}  // namespace aionbd
