#include "engine/salvaged_segment.h"

#include <cstring>

#include "engine/segment_sections.h"
#include "payload/payload.h"

namespace aionbd {
namespace {

/// The text between two offsets of an offsets section.
Result<Bytes> text_at(const Section& offsets, const Section& texts, uint32_t row) {
  ASSIGN_OR_RETURN(const Bytes pair, offsets.bytes(uint64_t{row} * sizeof(uint64_t), 16));
  uint64_t range[2];
  std::memcpy(range, pair.data(), sizeof(range));
  if (range[0] > range[1] || range[1] > texts.size()) {
    return corruption("offsets are not ascending");
  }
  return texts.bytes(range[0], range[1] - range[0]);
}

}  // namespace

Result<SalvagedSegment> SalvagedSegment::open(std::shared_ptr<SegmentFile> file) {
  SalvagedSegment out;
  out.file_ = std::move(file);
  const SegmentFile& f = *out.file_;
  const auto take = [&f](SectionTag tag, Section& section) {
    if (f.has_section(tag)) section = f.section(tag).value();
  };
  take(kTagIds, out.ids_);
  take(kTagIdOffsets, out.id_offsets_);
  take(kTagIdTexts, out.id_texts_);
  out.format_ = row_format_in(f);
  take(out.format_.tag, out.values_);
  take(kTagPayloadOffsets, out.payload_offsets_);
  take(kTagPayloads, out.payloads_);
  take(kTagKills, out.kills_);
  RETURN_IF_ERROR(out.find_rows());
  return out;
}

Status SalvagedSegment::find_rows() {
  const auto strange = [this](std::string_view what) {
    return corruption("no segment of rows, " + std::string(what) + ": " +
                      std::to_string(file_->id()));
  };
  const auto meta = file_->has_section(kTagMeta) ? file_->section(kTagMeta).value() : Section();
  if (meta.size() != kMetaBytes) return strange("its first section is another");
  if (kills_.size() % kKillBytes != 0) return strange("its kills do not fit");
  if (!file_->has_section(kTagNorms)) return {};  // deletions alone
  const uint64_t rows = file_->section(kTagNorms)->size() / sizeof(float);
  if (rows == 0 || rows > kSegmentRowsMax) return strange("its rows cannot be counted");
  const uint64_t row_bytes = values_.size() / rows;
  if (values_.size() % rows != 0 || row_bytes % format_.value_bytes != 0 || row_bytes == 0 ||
      row_bytes / format_.value_bytes > kDimensionCeiling) {
    return strange("its values do not fit its rows");
  }
  id_type_ = file_->has_section(kTagIds) ? IdType::kU64 : IdType::kString;
  const bool ids_fit = id_type_ == IdType::kU64
                           ? ids_.size() == rows * sizeof(uint64_t)
                           : id_offsets_.size() == (rows + 1) * sizeof(uint64_t);
  const bool payloads_fit =
      payloads_.size() == 0 || payload_offsets_.size() == (rows + 1) * sizeof(uint64_t);
  if (!ids_fit || !payloads_fit) return strange("its sections do not fit each other");
  rows_count_ = static_cast<uint32_t>(rows);
  dimension_ = static_cast<uint32_t>(row_bytes / format_.value_bytes);
  return {};
}

std::optional<PointId> SalvagedSegment::id_of(uint32_t row) const {
  const auto bytes = id_type_ == IdType::kU64
                         ? ids_.bytes(uint64_t{row} * sizeof(uint64_t), sizeof(uint64_t))
                         : text_at(id_offsets_, id_texts_, row);
  if (!bytes.has_value()) return std::nullopt;
  return point_id_of(id_type_, *bytes);
}

Result<Point> SalvagedSegment::row(uint32_t row) const {
  Point out;
  std::optional<PointId> id = id_of(row);
  if (!id.has_value()) return corruption("its id cannot be read");
  out.id = *std::move(id);
  const uint64_t row_bytes = uint64_t{dimension_} * format_.value_bytes;
  ASSIGN_OR_RETURN(const Bytes values, values_.bytes(row * row_bytes, row_bytes));
  out.values.resize(dimension_);
  values_in(format_, values.data()).copy(dimension_, out.values.data());
  if (payloads_.size() == 0) return out;
  ASSIGN_OR_RETURN(const Bytes payload, text_at(payload_offsets_, payloads_, row));
  RETURN_IF_ERROR(check_payload(payload));
  out.payload = decode_payload(payload);
  return out;
}

std::vector<Kill> SalvagedSegment::kills(uint64_t* lost) const {
  std::vector<Kill> out;
  *lost = 0;
  for (uint64_t at = 0; at < kills_.size(); at += kKillBytes) {
    const auto bytes = kills_.bytes(at, kKillBytes);
    if (!bytes.has_value()) {
      ++*lost;
      continue;
    }
    Decoder decoder(*bytes);
    Kill kill;
    kill.segment = decoder.get<uint64_t>();
    kill.row = decoder.get<uint32_t>();
    out.push_back(kill);
  }
  return out;
}

}  // namespace aionbd
