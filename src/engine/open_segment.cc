#include "engine/open_segment.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/checksum.h"
#include "distance/metric.h"

namespace aionbd {

OpenSegment::Table::Table(size_t slots_count)
    : mask(slots_count - 1), slots(std::make_unique<std::atomic<RowId>[]>(slots_count)) {}

OpenSegment::OpenSegment(SegmentId id, uint32_t dimension, IdType id_type, MemoryBudget* budget)
    : id_(id), dimension_(dimension), id_type_(id_type), reservation_(budget) {}

OpenSegment::~OpenSegment() = default;

uint64_t OpenSegment::row_bytes(uint32_t dimension, size_t id_bytes, size_t payload_bytes) {
  // Columns, and two table slots per row (the table is at most half full).
  constexpr uint64_t kColumns = sizeof(float) + sizeof(Text) + sizeof(RowId) + 2 * sizeof(RowId);
  const uint64_t id_column = id_bytes == 0 ? sizeof(uint64_t) : sizeof(Text) + id_bytes;
  return uint64_t{dimension} * sizeof(float) + kColumns + id_column + payload_bytes;
}

void OpenSegment::add_chunk(size_t c) {
  const size_t count = chunk_rows(c);
  Chunk& chunk = chunks_[c];
  chunk.values = std::make_unique_for_overwrite<float[]>(count * dimension_);
  chunk.norms_squared = std::make_unique_for_overwrite<float[]>(count);
  if (id_type_ == IdType::kU64) {
    chunk.numbers = std::make_unique_for_overwrite<uint64_t[]>(count);
  } else {
    chunk.texts = std::make_unique_for_overwrite<Text[]>(count);
  }
  chunk.payloads = std::make_unique_for_overwrite<Text[]>(count);
  chunk.previous = std::make_unique_for_overwrite<RowId[]>(count);
}

OpenSegment::Text OpenSegment::store(Bytes bytes) {
  if (bytes.empty()) return {};
  if (arena_left_ < bytes.size()) {
    const size_t size = std::max(kArenaBlockBytes, bytes.size());
    arena_.push_back(std::make_unique_for_overwrite<std::byte[]>(size));
    arena_next_ = arena_.back().get();
    arena_left_ = size;
  }
  std::memcpy(arena_next_, bytes.data(), bytes.size());
  const Text out{arena_next_, static_cast<uint32_t>(bytes.size())};
  arena_next_ += bytes.size();
  arena_left_ -= bytes.size();
  return out;
}

RowId OpenSegment::append(const PointId& id, const std::byte* values, Bytes payload) {
  CHECK_LT(uint64_t{rows_}, kSegmentRowsMax);
  const RowId row = rows_;
  const Place place = place_of(row);
  if (place.index == 0) add_chunk(place.chunk);
  Chunk& chunk = chunks_[place.chunk];
  float* target = chunk.values.get() + place.index * dimension_;
  std::memcpy(target, values, size_t{dimension_} * sizeof(float));
  chunk.norms_squared[place.index] = norm_squared(target, dimension_);
  if (id_type_ == IdType::kU64) {
    chunk.numbers[place.index] = id.number();
  } else {
    chunk.texts[place.index] = store(as_bytes_of(id.text()));
  }
  chunk.payloads[place.index] = store(payload);
  chunk.previous[place.index] = kNoRow;
  ++rows_;
  // The row is complete before the table shows it; `previous` of a shown row never changes.
  link(id, row);
  memory_.fetch_add(
      row_bytes(dimension_, id_type_ == IdType::kU64 ? 0 : id.text().size(), payload.size()),
      std::memory_order_relaxed);
  return row;
}

uint64_t OpenSegment::hash_of(const PointId& id) const {
  if (id_type_ == IdType::kString) return checksum(as_bytes_of(id.text()), 0);
  const uint64_t number = id.number();
  return checksum(std::as_bytes(std::span<const uint64_t, 1>(&number, 1)), 0);
}

bool OpenSegment::has_id(RowId row, const PointId& id) const {
  const Place place = place_of(row);
  const Chunk& chunk = chunks_[place.chunk];
  if (id_type_ == IdType::kU64) return chunk.numbers[place.index] == id.number();
  const Text& text = chunk.texts[place.index];
  return as_text(Bytes(text.data, text.size)) == id.text();
}

void OpenSegment::link(const PointId& id, RowId row) {
  if (tables_.empty() || 2 * (ids_count_ + 1) > tables_.back()->mask + 1) grow_table();
  Table& table = *tables_.back();
  for (size_t slot = hash_of(id) & table.mask;; slot = (slot + 1) & table.mask) {
    const RowId held = table.slots[slot].load(std::memory_order_relaxed);
    if (held == 0) {
      table.slots[slot].store(row + 1, std::memory_order_release);
      ++ids_count_;
      return;
    }
    if (has_id(held - 1, id)) {
      const Place place = place_of(row);
      chunks_[place.chunk].previous[place.index] = held - 1;
      table.slots[slot].store(row + 1, std::memory_order_release);
      return;
    }
  }
}

void OpenSegment::grow_table() {
  const size_t slots_count = tables_.empty() ? 2 * kFirstChunkRows : 2 * (tables_.back()->mask + 1);
  auto grown = std::make_unique<Table>(slots_count);
  if (!tables_.empty()) {
    const Table& old = *tables_.back();
    for (size_t i = 0; i <= old.mask; ++i) {
      const RowId held = old.slots[i].load(std::memory_order_relaxed);
      if (held == 0) continue;
      size_t slot = checksum(*id_bytes(held - 1), 0) & grown->mask;
      while (grown->slots[slot].load(std::memory_order_relaxed) != 0) {
        slot = (slot + 1) & grown->mask;
      }
      grown->slots[slot].store(held, std::memory_order_relaxed);
    }
  }
  tables_.push_back(std::move(grown));  // may fail for want of memory: nobody knows the table yet
  table_.store(tables_.back().get(), std::memory_order_release);
}

Result<RowBlock> OpenSegment::rows(RowId first, size_t limit) const {
  const Place place = place_of(first);
  const Chunk& chunk = chunks_[place.chunk];
  RowBlock out;
  out.values = chunk.values.get() + place.index * dimension_;
  out.norms_squared = chunk.norms_squared.get() + place.index;
  out.count = std::min(limit, chunk_rows(place.chunk) - place.index);
  return out;
}

Status OpenSegment::copy_rows(RowId first, size_t n, float* values, float* norms) const {
  while (n > 0) {
    ASSIGN_OR_RETURN(const RowBlock block, rows(first, n));
    values = std::copy_n(block.values.floats, block.count * dimension_, values);
    if (norms != nullptr) norms = std::copy_n(block.norms_squared, block.count, norms);
    first += static_cast<RowId>(block.count);
    n -= block.count;
  }
  return {};
}

Result<Bytes> OpenSegment::id_bytes(RowId row) const {
  const Place place = place_of(row);
  const Chunk& chunk = chunks_[place.chunk];
  if (id_type_ == IdType::kU64) {
    return Bytes(std::as_bytes(std::span<const uint64_t, 1>(chunk.numbers.get() + place.index, 1)));
  }
  const Text& text = chunk.texts[place.index];
  return Bytes(text.data, text.size);
}

Result<Bytes> OpenSegment::payload(RowId row) const {
  const Place place = place_of(row);
  const Text& text = chunks_[place.chunk].payloads[place.index];
  return Bytes(text.data, text.size);
}

uint64_t OpenSegment::memory_bytes() const {
  uint64_t bytes = memory_.load(std::memory_order_relaxed);
  for (const Codes& codes : codes_) {
    const std::shared_ptr<const VectorIndex> held = codes.rows.get();
    if (held != nullptr) bytes += held->memory_bytes();
  }
  return bytes;
}

std::shared_ptr<const VectorIndex> OpenSegment::row_codes(Metric metric) const {
  return codes_[static_cast<size_t>(metric)].rows.get();
}

void OpenSegment::attach_codes(Metric metric, std::shared_ptr<const VectorIndex> codes) const {
  codes_[static_cast<size_t>(metric)].rows.set(std::move(codes));
}

void OpenSegment::refuse_codes(Metric metric) const {
  codes_[static_cast<size_t>(metric)].refused.store(true, std::memory_order_relaxed);
}

bool OpenSegment::refuses_codes(Metric metric) const {
  return codes_[static_cast<size_t>(metric)].refused.load(std::memory_order_relaxed);
}

Result<std::optional<RowId>> OpenSegment::find(const PointId& id, RowId visible) const {
  const Table* table = table_.load(std::memory_order_acquire);
  if (table == nullptr) return std::optional<RowId>();
  for (size_t slot = hash_of(id) & table->mask;; slot = (slot + 1) & table->mask) {
    const RowId held = table->slots[slot].load(std::memory_order_acquire);
    if (held == 0) return std::optional<RowId>();
    if (!has_id(held - 1, id)) continue;
    RowId row = held - 1;
    while (row != kNoRow && row >= visible) {
      const Place place = place_of(row);
      row = chunks_[place.chunk].previous[place.index];
    }
    return row == kNoRow ? std::optional<RowId>() : std::optional<RowId>(row);
  }
}

}  // namespace aionbd
