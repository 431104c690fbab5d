// Every body decoder on every input. Besides not crashing: a body one decoder accepts is valid
// JSON, so all that ignore its fields say the same of its syntax.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "server/wire.h"

namespace aionbd {
namespace {

void decode_all(std::string_view body) {
  JsonReader reader;
  const WireLimits limits;
  CollectionOptions options;
  options.dimension = 2;
  bool valid = reader.read(body, [](std::string_view, JsonValue&) { return Status(); }).ok();
  // A payload that reads must print as JSON that reads back to the same text.
  Payload payload;
  const Status read = reader.read(body, [&](std::string_view key, JsonValue& value) {
    return value.read_value(payload[std::string(key)]);
  });
  CHECK_TRUE(!read.ok() || valid);  // payloads know no number beyond double
  if (read.ok()) {
    std::string first;
    JsonWriter(first).object(payload);
    std::string again = first;
    again.append(kJsonPadding, ' ');
    Payload second;
    const Status back = reader.read(std::string_view(again).substr(0, first.size()),
                                    [&](std::string_view key, JsonValue& value) {
                                      return value.read_value(second[std::string(key)]);
                                    });
    CHECK_TRUE(back.ok());
    std::string printed;
    JsonWriter(printed).object(second);
    CHECK_EQ(printed, first);
  }
  const auto implies_valid = [&](bool ok) { CHECK_TRUE(!ok || valid); };
  for (const bool strict : {true, false}) {
    options.strict_finite = strict;
    implies_valid(decode_upsert(reader, body, options, limits).has_value());
    Point point;
    implies_valid(decode_point_body(reader, body, options, point).ok());
    for (const SearchShape shape : {SearchShape::kTop1, SearchShape::kTopK, SearchShape::kBatch}) {
      static_cast<void>(decode_search(reader, body, shape, options, limits).has_value());
    }
  }
  static_cast<void>(decode_distance(reader, body, limits).has_value());
  implies_valid(decode_create_collection(reader, body, limits).has_value());
  for (const IdType id_type : {IdType::kU64, IdType::kString}) {
    implies_valid(decode_get(reader, body, id_type, limits).has_value());
    implies_valid(decode_delete(reader, body, id_type).has_value());
    implies_valid(decode_payload_set(reader, body, id_type).has_value());
    implies_valid(decode_payload_delete(reader, body, id_type).has_value());
    implies_valid(decode_scroll(reader, body, id_type, limits).has_value());
  }
  implies_valid(decode_count(reader, body).has_value());
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string body(reinterpret_cast<const char*>(data), size);
  body.append(aionbd::kJsonPadding, '1');
  aionbd::decode_all(std::string_view(body).substr(0, size));
  return 0;
}
