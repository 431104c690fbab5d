// The rows of a segment file that may be damaged: each row can be read if the blocks it lies in are
// whole, whatever became of the others.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "engine/row.h"
#include "engine/row_format.h"
#include "engine/segment.h"
#include "storage/segment_file.h"

namespace aionbd {

/// Thread safety: compatible.
class SalvagedSegment {
 public:
  /// Takes sizes from the table of sections, so that the section that states them may be damaged.
  /// `file`: opened with SegmentOpening::kSalvage. Errors: corruption: the sections do not fit each
  /// other, or are not those of rows.
  static Result<SalvagedSegment> open(std::shared_ptr<SegmentFile> file);

  SegmentId id() const { return file_->id(); }
  uint32_t rows_count() const { return rows_count_; }
  uint32_t dimension() const { return dimension_; }  // 0 when there are no rows
  IdType id_type() const { return id_type_; }

  /// Errors: corruption: some part of the row is in a damaged block, or is no value.
  Result<Point> row(uint32_t row) const;
  /// The id alone, if that can be read.
  std::optional<PointId> id_of(uint32_t row) const;
  /// The kills that can be read; `lost` is how many cannot.
  std::vector<Kill> kills(uint64_t* lost) const;

 private:
  SalvagedSegment() = default;
  Status find_rows();

  std::shared_ptr<SegmentFile> file_;
  uint32_t rows_count_ = 0;
  uint32_t dimension_ = 0;
  IdType id_type_ = IdType::kU64;
  RowFormat format_ = kRowFormats.back();
  Section ids_, id_offsets_, id_texts_, values_, payload_offsets_, payloads_, kills_;
};

}  // namespace aionbd
