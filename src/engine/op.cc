#include "engine/op.h"

#include <bit>
#include <cstring>

#include "base/utf8.h"
#include "payload/payload.h"

namespace aionbd {

namespace {

// Persistent, never renumber.
enum class OpKind : uint32_t { kCreate = 1, kDrop = 2, kUpsert = 3, kRemove = 4 };

constexpr uint8_t kNoMetric = 0xFF;
constexpr size_t kUpsertHeaderBytes = 24;  // a multiple of 8: the values behind it stay aligned

void put_ids(Encoder& out, IdType id_type, std::span<const PointId> ids) {
  for (const PointId& id : ids) {
    if (id_type == IdType::kU64) {
      out.put(id.number());
    } else {
      out.put_string(id.text());
    }
  }
}

Status check_id(const PointId& id, IdType id_type) {
  if (id.type() != id_type) {
    return invalid_argument(id_type == IdType::kU64
                                ? "id must be an unsigned 64-bit integer in this collection"
                                : "id must be a string in this collection");
  }
  if (id_type == IdType::kString && (id.text().empty() || id.text().size() > kStringIdBytesMax)) {
    return invalid_argument("id must be 1 to " + std::to_string(kStringIdBytesMax) +
                            " bytes: got " + std::to_string(id.text().size()));
  }
  if (id_type == IdType::kString && !is_utf8(id.text())) {
    return invalid_argument("id must be UTF-8: got " + quoted_text(id.text()));
  }
  return {};
}

Status check_point(const Point& point, const CollectionOptions& options) {
  RETURN_IF_ERROR(check_id(point.id, options.id_type));
  if (point.values.size() != options.dimension) {
    return invalid_argument("values: dimension differs from the collection's: got " +
                            std::to_string(point.values.size()) + ", want " +
                            std::to_string(options.dimension));
  }
  if (options.strict_finite && !all_finite(point.values)) {
    return invalid_argument("values must be finite f32 numbers in a strict collection");
  }
  return {};
}

/// Reads `count` ids; false when they are not there or not ids.
bool get_ids(Decoder& in, IdType id_type, uint64_t count, std::vector<PointId>& out) {
  const size_t least_bytes = id_type == IdType::kU64 ? 8 : 4;
  if (count > in.remaining() / least_bytes) return false;  // bounds the reserve below
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    if (id_type == IdType::kU64) {
      out.emplace_back(in.get<uint64_t>());
    } else {
      const std::string_view text = in.get_string();
      if (text.empty() || text.size() > kStringIdBytesMax) return false;
      out.emplace_back(text);
    }
  }
  return in.ok();
}

bool get_id_type(Decoder& in, IdType& out) {
  const auto raw = in.get<uint32_t>();
  out = static_cast<IdType>(raw);
  return in.ok() && raw <= static_cast<uint32_t>(IdType::kString);
}

Result<Op> malformed(const char* what) {
  return corruption(std::string("log record is not a valid operation: ") + what);
}

Result<Op> decode_upsert(Decoder& in) {
  UpsertOp op;
  const auto count = in.get<uint32_t>();
  op.collection = in.get<uint64_t>();
  op.dimension = in.get<uint32_t>();
  if (!get_id_type(in, op.id_type) || op.dimension == 0 || op.dimension > kDimensionCeiling) {
    return malformed("upsert header");
  }
  const Bytes values = in.get_raw(uint64_t{count} * op.dimension * sizeof(float));
  if (!in.ok() || !get_ids(in, op.id_type, count, op.ids)) return malformed("upsert ids");
  op.values = values.data();
  op.payloads.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const Bytes payload = as_bytes_of(in.get_string());
    if (!in.ok() || !check_payload(payload).ok()) return malformed("upsert payload");
    op.payloads.push_back(payload);
  }
  if (!in.finished()) return malformed("bytes after the upsert");
  return Op(std::move(op));
}

}  // namespace

bool all_finite(std::span<const float> values) {
  // An exponent of all ones means infinity or NaN; one OR over the comparison vectorises.
  uint32_t bad = 0;
  for (const float value : values) {
    bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & 0x7F800000U) == 0x7F800000U);
  }
  return bad == 0;
}

Status check_collection_name(std::string_view name) {
  if (name.empty() || name.size() > kNameCharsMax) {
    return invalid_argument("name must be 1 to " + std::to_string(kNameCharsMax) +
                            " characters: got " + std::to_string(name.size()));
  }
  for (const char c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '.' || c == '_' || c == '-';
    if (!good) return invalid_argument("name may hold only the characters A-Z a-z 0-9 . _ -");
  }
  if (name == "." || name.find("..") != std::string_view::npos) {
    return invalid_argument("name must not be \".\" or contain \"..\"");
  }
  return {};
}

Status check_collection_options(const CollectionOptions& options, uint32_t dimension_max) {
  if (options.dimension < 1 || options.dimension > dimension_max) {
    return invalid_argument("dimension must be between 1 and " + std::to_string(dimension_max) +
                            ": got " + std::to_string(options.dimension));
  }
  return {};
}

void encode_collection_options(const CollectionOptions& options, Encoder& out) {
  out.put(options.dimension);
  out.put(static_cast<uint8_t>(options.strict_finite ? 1 : 0));
  out.put(static_cast<uint8_t>(options.id_type));
  out.put(options.metric ? static_cast<uint8_t>(*options.metric) : kNoMetric);
  out.put(uint8_t{0});
}

bool decode_collection_options(Decoder& in, CollectionOptions& out) {
  out.dimension = in.get<uint32_t>();
  const auto strict = in.get<uint8_t>();
  const auto id_type = in.get<uint8_t>();
  const auto metric = in.get<uint8_t>();
  const auto reserved = in.get<uint8_t>();
  if (!in.ok() || out.dimension == 0 || out.dimension > kDimensionCeiling || strict > 1 ||
      id_type > static_cast<uint8_t>(IdType::kString) || reserved != 0 ||
      (metric != kNoMetric && metric >= kMetricsCount)) {
    return false;
  }
  out.strict_finite = strict != 0;
  out.id_type = static_cast<IdType>(id_type);
  out.metric.reset();
  if (metric != kNoMetric) out.metric = static_cast<Metric>(metric);
  return true;
}

Result<std::string> encode_upsert(CollectionUid collection, const CollectionOptions& options,
                                  std::span<const Point> points) {
  std::string payloads;
  Encoder payload_out(&payloads);
  size_t id_bytes = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    const auto in_batch = [&](const Status& status) {
      return points.size() == 1 ? status : status.with_context("points[" + std::to_string(i) + "]");
    };
    const Status checked = check_point(points[i], options);
    if (!checked.ok()) return in_batch(checked);
    if (points[i].payload.empty()) {
      payload_out.put(uint32_t{0});
    } else {
      const Result<std::string> encoded = encode_payload(points[i].payload);
      if (!encoded) return in_batch(encoded.error());
      payload_out.put_string(*encoded);
    }
    id_bytes += 8 + points[i].id.text().size();
  }
  const uint64_t row_bytes = uint64_t{options.dimension} * sizeof(float);
  const uint64_t total =
      kUpsertHeaderBytes + points.size() * row_bytes + id_bytes + payloads.size();
  if (total > kRecordBytesMax) {
    return invalid_argument("points: the batch takes " + std::to_string(total) +
                            " bytes, the most is " + std::to_string(kRecordBytesMax));
  }
  std::string record;
  record.reserve(total);
  Encoder out(&record);
  out.put(OpKind::kUpsert);
  out.put(static_cast<uint32_t>(points.size()));
  out.put(collection);
  out.put(options.dimension);
  out.put(static_cast<uint32_t>(options.id_type));
  for (const Point& point : points) out.put_raw(point.values.data(), row_bytes);
  for (const Point& point : points) put_ids(out, options.id_type, std::span(&point.id, 1));
  record += payloads;
  return record;
}

std::string encode_create(const CreateOp& op) {
  std::string record;
  Encoder out(&record);
  out.put(OpKind::kCreate);
  encode_collection_options(op.options, out);
  out.put_string(op.name);
  return record;
}

std::string encode_drop(CollectionUid collection) {
  std::string record;
  Encoder out(&record);
  out.put(OpKind::kDrop);
  out.put(collection);
  return record;
}

std::string encode_remove(CollectionUid collection, IdType id_type, std::span<const PointId> ids) {
  std::string record;
  Encoder out(&record);
  out.put(OpKind::kRemove);
  out.put(static_cast<uint32_t>(ids.size()));
  out.put(collection);
  out.put(static_cast<uint32_t>(id_type));
  put_ids(out, id_type, ids);
  return record;
}

Result<Op> decode_op(Bytes record) {
  Decoder in(record);
  switch (in.get<OpKind>()) {
    case OpKind::kCreate: {
      CreateOp op;
      if (!decode_collection_options(in, op.options)) return malformed("create options");
      op.name = std::string(in.get_string());
      if (!in.finished() || !check_collection_name(op.name).ok()) return malformed("create name");
      return Op(std::move(op));
    }
    case OpKind::kDrop: {
      const DropOp op{in.get<uint64_t>()};
      if (!in.finished()) return malformed("drop");
      return Op(op);
    }
    case OpKind::kUpsert: return decode_upsert(in);
    case OpKind::kRemove: {
      RemoveOp op;
      const auto count = in.get<uint32_t>();
      op.collection = in.get<uint64_t>();
      IdType id_type = IdType::kU64;
      if (!get_id_type(in, id_type) || !get_ids(in, id_type, count, op.ids) || !in.finished()) {
        return malformed("remove");
      }
      return Op(std::move(op));
    }
  }
  return malformed("unknown kind");
}

}  // namespace aionbd
