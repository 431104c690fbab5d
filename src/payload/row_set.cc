#include "payload/row_set.h"

#include <roaring/roaring.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "payload/posting.h"

namespace aionbd {

void RowSet::Deleter::operator()(roaring_bitmap_s* bitmap) const {
  roaring_bitmap_free(bitmap);
}

RowSet::RowSet(Bitmap bitmap) : bitmap_(std::move(bitmap)) {
  CHECK_TRUE(bitmap_ != nullptr);  // the library's way to say that memory ran out
  if (roaring_bitmap_is_empty(bitmap_.get())) bitmap_.reset();
}

RowSet RowSetAccess::adopt(roaring_bitmap_s* bitmap) {
  return RowSet(RowSet::Bitmap(bitmap));
}

roaring_bitmap_s* RowSetAccess::bitmap(RowSet* set) {
  return set->bitmap_.get();
}

const roaring_bitmap_s* RowSetAccess::bitmap(const RowSet& set) {
  return set.bitmap_.get();
}

RowSet RowSet::all(uint64_t rows) {
  if (rows == 0) return {};
  return RowSet(Bitmap(roaring_bitmap_from_range(0, rows, 1)));
}

RowSet RowSet::of(std::span<const uint32_t> rows) {
  if (rows.empty()) return {};
  return RowSet(Bitmap(roaring_bitmap_of_ptr(rows.size(), rows.data())));
}

RowSet::RowSet(const RowSet& other) {
  if (other.bitmap_ != nullptr) *this = RowSet(Bitmap(roaring_bitmap_copy(other.bitmap_.get())));
}

RowSet& RowSet::operator=(const RowSet& other) {
  if (this != &other) *this = RowSet(other);
  return *this;
}

uint64_t RowSet::count() const {
  return bitmap_ == nullptr ? 0 : roaring_bitmap_get_cardinality(bitmap_.get());
}

bool RowSet::empty() const {
  return bitmap_ == nullptr;
}

bool RowSet::contains(uint32_t row) const {
  return bitmap_ != nullptr && roaring_bitmap_contains(bitmap_.get(), row);
}

bool RowSet::operator==(const RowSet& other) const {
  if (empty() || other.empty()) return empty() == other.empty();
  return roaring_bitmap_equals(bitmap_.get(), other.bitmap_.get());
}

void RowSet::and_with(const RowSet& other) {
  if (this == &other || empty()) return;
  if (other.empty()) {
    bitmap_.reset();
    return;
  }
  roaring_bitmap_and_inplace(bitmap_.get(), other.bitmap_.get());
  if (roaring_bitmap_is_empty(bitmap_.get())) bitmap_.reset();
}

void RowSet::or_with(const RowSet& other) {
  if (this == &other || other.empty()) return;
  if (empty()) {
    *this = other;
    return;
  }
  roaring_bitmap_or_inplace(bitmap_.get(), other.bitmap_.get());
}

void RowSet::and_not_with(const RowSet& other) {
  if (empty() || other.empty()) return;
  if (this == &other) {
    bitmap_.reset();
    return;
  }
  roaring_bitmap_andnot_inplace(bitmap_.get(), other.bitmap_.get());
  if (roaring_bitmap_is_empty(bitmap_.get())) bitmap_.reset();
}

void RowSet::to_bitset(std::span<uint64_t> words) const {
  write_bitset(*this, words);
}

size_t RowSet::memory_bytes() const {
  if (bitmap_ == nullptr) return 0;
  roaring_statistics_t statistics;
  roaring_bitmap_statistics(bitmap_.get(), &statistics);
  constexpr size_t kContainerBytes = 32;  // its header, key and pointer
  return sizeof(roaring_bitmap_t) + statistics.n_containers * kContainerBytes +
         statistics.n_bytes_array_containers + statistics.n_bytes_run_containers +
         statistics.n_bytes_bitset_containers;
}

// ---- Cursor -------------------------------------------------------------------------------------

struct RowSet::Cursor::State {
  roaring_uint32_iterator_t iterator;
};

RowSet::Cursor::~Cursor() = default;

RowSet::Cursor::Cursor(const RowSet& set) {
  if (set.bitmap_ == nullptr) return;
  state_ = std::make_unique<State>();
  roaring_init_iterator(set.bitmap_.get(), &state_->iterator);
}

size_t RowSet::Cursor::next(std::span<uint32_t> rows) {
  if (state_ == nullptr) return 0;
  constexpr size_t kBlockMax = size_t{1} << 30;  // the library counts in 32 bits
  return roaring_read_uint32_iterator(&state_->iterator, rows.data(),
                                      static_cast<uint32_t>(std::min(rows.size(), kBlockMax)));
}

void RowSet::Cursor::seek(uint32_t row) {
  if (state_ != nullptr) roaring_move_uint32_iterator_equalorlarger(&state_->iterator, row);
}

}  // namespace aionbd
