// The one segment that takes writes: columns in memory, appended by the writer while readers look.
//
// What makes it hard: readers hold no lock. Columns therefore never move: chunk c holds 64 * 2^c
// rows, so 26 chunk pointers reach 2^32 rows and a row's address is computed, not looked up. A
// reader touches only rows below the visible count of its view, and the view was published after
// they were written. The id table is read concurrently too: an insert-only open-addressing table of
// atomic row numbers whose slot is stored with release after the row is complete; it points at the
// newest row of an id, and each row points at the one before (`previous`), so that a reader with an
// older view walks back to the row it may see.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string_view>
#include <vector>

#include "base/published.h"
#include "engine/budget.h"
#include "engine/segment.h"

namespace aionbd {

/// Thread safety: one writer (the collection's write lock); readers as Segment says.
class OpenSegment : public Segment {
 public:
  OpenSegment(SegmentId id, uint32_t dimension, IdType id_type, MemoryBudget* budget);
  ~OpenSegment() override;

  // ---- the writer ----
  /// Bytes that a row with these takes: what to reserve before `append`.
  static uint64_t row_bytes(uint32_t dimension, size_t id_bytes, size_t payload_bytes);
  /// Adds a row. `values` is float[dimension], any alignment. REQUIRES: its row_bytes reserved.
  RowId append(const PointId& id, const std::byte* values, Bytes payload);
  /// Rows appended so far, visible or not.
  RowId rows_appended() const { return rows_; }
  /// Takes over reserved bytes; given back when the segment is freed.
  void adopt_reservation(uint64_t bytes) { reservation_.adopt(bytes); }

  // ---- readers ----
  SegmentId id() const override { return id_; }
  bool sealed() const override { return false; }
  Result<RowBlock> rows(RowId first, size_t limit) const override;
  Status copy_rows(RowId first, size_t n, float* values, float* norms) const override;
  Result<Bytes> id_bytes(RowId row) const override;
  Result<Bytes> payload(RowId row) const override;
  Result<std::optional<RowId>> find(const PointId& id, RowId visible) const override;
  uint64_t disk_bytes() const override { return 0; }
  uint64_t memory_bytes() const override;
  std::shared_ptr<const VectorIndex> row_codes(Metric metric) const override;

  /// Puts codes of more rows in the place of those it has. One caller at a time.
  void attach_codes(Metric metric, std::shared_ptr<const VectorIndex> codes) const;
  /// That there is no use in asking for codes: they do not suit its rows.
  void refuse_codes(Metric metric) const;
  bool refuses_codes(Metric metric) const;

  uint32_t dimension() const { return dimension_; }
  IdType id_type() const { return id_type_; }

 private:
  static constexpr size_t kFirstChunkRows = 64;
  static constexpr size_t kChunksMax = 27;
  static constexpr size_t kArenaBlockBytes = size_t{64} << 10;

  struct Text {
    const std::byte* data = nullptr;
    uint32_t size = 0;
  };
  struct Chunk {
    std::unique_ptr<float[]> values;
    std::unique_ptr<float[]> norms_squared;
    std::unique_ptr<uint64_t[]> numbers;  // u64 ids
    std::unique_ptr<Text[]> texts;        // string ids
    std::unique_ptr<Text[]> payloads;
    std::unique_ptr<RowId[]> previous;  // the row before of the same id, or kNoRow
  };
  struct Place {
    size_t chunk;
    size_t index;
  };
  struct Table {
    explicit Table(size_t slots);
    size_t mask;
    std::unique_ptr<std::atomic<RowId>[]> slots;  // row + 1; 0 = empty
  };

  static Place place_of(RowId row) {
    const uint64_t block = row / kFirstChunkRows + 1;
    const auto chunk = static_cast<size_t>(63 - __builtin_clzll(block));
    return {chunk, row - kFirstChunkRows * ((uint64_t{1} << chunk) - 1)};
  }
  static size_t chunk_rows(size_t chunk) { return kFirstChunkRows << chunk; }

  void add_chunk(size_t chunk);
  Text store(Bytes bytes);
  bool has_id(RowId row, const PointId& id) const;
  uint64_t hash_of(const PointId& id) const;
  /// Makes the table point at `row` for its id, and `row` at the row it pointed at before.
  void link(const PointId& id, RowId row);
  void grow_table();

  // Constant after construction.
  const SegmentId id_;
  const uint32_t dimension_;
  const IdType id_type_;

  // The writer's; read by readers only as described at the top.
  std::array<Chunk, kChunksMax> chunks_;
  std::atomic<Table*> table_{nullptr};
  std::vector<std::unique_ptr<Table>> tables_;  // the current one last; older ones may be in use
  size_t ids_count_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> arena_;
  size_t arena_left_ = 0;
  std::byte* arena_next_ = nullptr;
  RowId rows_ = 0;
  std::atomic<uint64_t> memory_{0};
  Reservation reservation_;

  // Own synchronisation.
  struct Codes {
    Published<VectorIndex> rows;
    std::atomic<bool> refused{false};
  };
  mutable std::array<Codes, 3> codes_;  // by metric
};

}  // namespace aionbd
