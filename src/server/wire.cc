#include "server/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/utf8.h"

namespace aionbd {
namespace {

constexpr std::array<std::pair<std::string_view, Metric>, kMetricsCount> kMetricNames = {
    {{"dot", Metric::kDot}, {"l2", Metric::kL2}, {"cosine", Metric::kCosine}}};
constexpr std::array<std::pair<std::string_view, SearchMode>, 4> kModeNames = {
    {{"exact", SearchMode::kExact},
     {"ivf", SearchMode::kIvf},
     {"graph", SearchMode::kGraph},
     {"auto", SearchMode::kAuto}}};
constexpr std::array<std::pair<std::string_view, IdType>, 2> kIdTypeNames = {
    {{"u64", IdType::kU64}, {"string", IdType::kString}}};
/// Ids of one get, delete or payload request: as many as a body of 16 MiB holds of long ids, and
/// far more than one log record should name.
constexpr size_t kRequestIdsMax = 100000;
/// Keys of one payload/delete request.
constexpr size_t kRequestKeysMax = 1024;

template <typename Table, typename E>
std::string_view name_of(const Table& table, E value) {
  for (const auto& [name, entry] : table) {
    if (entry == value) return name;
  }
  return "unknown";
}

/// Reads a string that must be one of the table's names.
template <typename E, size_t N>
Result<E> read_choice(JsonValue& value,
                      const std::array<std::pair<std::string_view, E>, N>& table) {
  ASSIGN_OR_RETURN(const std::string_view text, value.read_string());
  std::string names;
  for (const auto& [name, entry] : table) {
    if (name == text) return entry;
    names += names.empty() ? "" : ", ";
    names += name;
  }
  return value.must_be(fmt::format("one of {}", names));
}

Result<uint64_t> read_bounded(JsonValue& value, uint64_t min, uint64_t max) {
  ASSIGN_OR_RETURN(const uint64_t number, value.read_u64());
  if (number < min || number > max) {
    return invalid_argument(
        fmt::format("{} must be between {} and {}: got {}", value.name(), min, max, number));
  }
  return number;
}

template <typename T>
Status assign(T& out, Result<T> result) {
  if (!result.has_value()) return result.error();
  out = std::move(result).value();
  return {};
}

template <typename T>
Status assign(std::optional<T>& out, Result<T> result) {
  if (!result.has_value()) return result.error();
  out = std::move(result).value();
  return {};
}

Status missing(std::string_view field) {
  return invalid_argument(fmt::format("{} is missing", field));
}

Result<PointId> read_id(JsonValue& value, IdType id_type) {
  if (value.kind() == JsonKind::kString) {
    ASSIGN_OR_RETURN(const std::string_view text, value.read_string());
    return parse_point_id(text, id_type);
  }
  if (id_type == IdType::kString) return value.must_be("a string: this collection has string ids");
  ASSIGN_OR_RETURN(const uint64_t number, value.read_u64());
  return PointId(number);
}

Status read_ids(JsonValue& value, IdType id_type, size_t ids_max, std::vector<PointId>& out) {
  RETURN_IF_ERROR(value.read_array([&](JsonValue& item) -> Status {
    if (out.size() == ids_max) return value.must_be(fmt::format("at most {} ids", ids_max));
    ASSIGN_OR_RETURN(PointId id, read_id(item, id_type));
    out.push_back(std::move(id));
    return {};
  }));
  if (out.empty()) return value.must_be("an array of at least one id");
  return {};
}

Status read_payload(JsonValue& value, Payload& out) {
  // A null payload means none: clients with optional fields send it so.
  if (value.kind() == JsonKind::kNull) return value.skip();
  return value.read_object([&](std::string_view key, JsonValue& member) -> Status {
    if (is_blank(key)) return invalid_argument("a payload key is blank");
    if (key.size() > kPayloadKeyBytesMax) {
      return invalid_argument(
          fmt::format("a payload key has {} bytes: at most {}", key.size(), kPayloadKeyBytesMax));
    }
    return member.read_value(out[std::string(key)]);
  });
}

// ---- Filters -----------------------------------------------------------------------------------

/// Reads filters of bounded size; depth is bounded by the JSON reader.
class FilterReader {
 public:
  Status read(JsonValue& value, Filter& out) {
    return value.read_object([&](std::string_view key, JsonValue& member) -> Status {
      if (key == "must") return read_clauses(member, out.must);
      if (key == "should") return read_clauses(member, out.should);
      if (key == "must_not") return read_clauses(member, out.must_not);
      if (key == "minimum_should_match") return read_minimum(member, out);
      return invalid_argument(fmt::format("filter knows no key \"{}\"", key));
    });
  }

  static Status check(const Filter& filter) {
    if (filter.minimum_should_match.value_or(0) > filter.should.size()) {
      return invalid_argument(
          fmt::format("minimum_should_match must be at most the number of "
                      "should clauses: got {}, want at most {}",
                      *filter.minimum_should_match, filter.should.size()));
    }
    for (const auto* list : {&filter.must, &filter.should, &filter.must_not}) {
      for (const Clause& clause : *list) {
        if (clause.nested) RETURN_IF_ERROR(check(*clause.nested));
      }
    }
    return {};
  }

 private:
  static Status read_minimum(JsonValue& value, Filter& out) {
    if (value.kind() == JsonKind::kNull) return value.skip();
    ASSIGN_OR_RETURN(const uint64_t number, read_bounded(value, 0, kFilterClausesMax));
    out.minimum_should_match = static_cast<uint32_t>(number);
    return {};
  }

  Status read_clauses(JsonValue& value, std::vector<Clause>& out) {
    if (value.kind() == JsonKind::kNull) return value.skip();
    return value.read_array([&](JsonValue& item) -> Status {
      if (++clauses_count_ > kFilterClausesMax) {
        return invalid_argument(fmt::format("filter has over {} clauses", kFilterClausesMax));
      }
      return read_clause(item, out.emplace_back());
    });
  }

  Status read_clause(JsonValue& value, Clause& out) {
    Filter nested;
    bool has_nested = false, has_field = false;
    int tests = 0;
    InRange range;
    bool has_range = false;
    const auto bound = [&](JsonValue& member, std::optional<Value>& side) -> Status {
      if (member.kind() != JsonKind::kNumber) return member.must_be("a number");
      has_range = true;
      return member.read_value(side.emplace());
    };
    RETURN_IF_ERROR(value.read_object([&](std::string_view key, JsonValue& member) -> Status {
      if (key == "field") {
        has_field = true;
        ASSIGN_OR_RETURN(const std::string_view field, member.read_string());
        if (is_blank(field)) return invalid_argument("field of a filter clause is blank");
        out.field = field;
        return {};
      }
      if (key == "gt") return bound(member, range.gt);
      if (key == "gte") return bound(member, range.gte);
      if (key == "lt") return bound(member, range.lt);
      if (key == "lte") return bound(member, range.lte);
      if (key == "must" || key == "should" || key == "must_not" || key == "minimum_should_match") {
        has_nested = true;
        if (key == "must") return read_clauses(member, nested.must);
        if (key == "should") return read_clauses(member, nested.should);
        if (key == "must_not") return read_clauses(member, nested.must_not);
        return read_minimum(member, nested);
      }
      ++tests;
      return read_test(key, member, out);
    }));
    if (has_range) {
      ++tests;
      out.test = std::move(range);
    }
    if (has_nested) {
      if (has_field || tests > 0) {
        return invalid_argument("a filter clause is either a test of a field or a nested filter");
      }
      out.nested = std::make_unique<Filter>(std::move(nested));
      return {};
    }
    if (!has_field) return invalid_argument("a filter clause needs a field");
    if (tests != 1) return invalid_argument("a filter clause needs exactly one kind of test");
    return {};
  }

  static Status read_test(std::string_view key, JsonValue& member, Clause& out) {
    if (key == "value") {
      EqualTo test;
      RETURN_IF_ERROR(read_scalar(member, test.value));
      out.test = std::move(test);
      return {};
    }
    if (key == "in") {
      AnyOf test;
      RETURN_IF_ERROR(read_scalars(member, test.values));
      out.test = std::move(test);
      return {};
    }
    if (key == "contains_all") {
      ContainsAll test;
      RETURN_IF_ERROR(read_scalars(member, test.values));
      out.test = std::move(test);
      return {};
    }
    if (key == "exists") {
      ASSIGN_OR_RETURN(const bool exists, member.read_bool());
      out.test = Exists{exists};
      return {};
    }
    if (key == "prefix") {
      ASSIGN_OR_RETURN(const std::string_view prefix, member.read_string());
      out.test = StartsWith{std::string(prefix)};
      return {};
    }
    return invalid_argument(fmt::format("a filter clause knows no key \"{}\"", key));
  }

  static Status read_scalar(JsonValue& value, Value& out) {
    const JsonKind kind = value.kind();
    if (kind == JsonKind::kArray || kind == JsonKind::kObject) {
      return value.must_be("a string, number, boolean or null");
    }
    return value.read_value(out);
  }

  static Status read_scalars(JsonValue& value, std::vector<Value>& out) {
    return value.read_array(
        [&](JsonValue& item) -> Status { return read_scalar(item, out.emplace_back()); });
  }

  size_t clauses_count_ = 0;
};

Status read_filter(JsonValue& value, std::optional<Filter>& out) {
  if (value.kind() == JsonKind::kNull) return value.skip();
  FilterReader reader;
  RETURN_IF_ERROR(reader.read(value, out.emplace()));
  return FilterReader::check(*out);
}

}  // namespace

// ---- Errors ------------------------------------------------------------------------------------

WireError wire_error_of(Code code) {
  switch (code) {
    case Code::kOk: return {200, "ok"};
    case Code::kInvalidArgument: return {400, "invalid_argument"};
    case Code::kUnauthenticated: return {401, "unauthorized"};
    case Code::kPermissionDenied: return {403, "forbidden"};
    case Code::kNotFound: return {404, "not_found"};
    case Code::kDeadlineExceeded: return {408, "request_timeout"};
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition: return {409, "conflict"};
    case Code::kResourceExhausted: return {429, "resource_exhausted"};
    case Code::kInternal: return {500, "internal"};
    case Code::kUnavailable:
    case Code::kCorruption:
    case Code::kIoError:
    case Code::kInUse: return {503, "not_ready"};
    case Code::kStorageFull: return {507, "storage_full"};
  }
  return {500, "internal"};
}

std::string public_message(const Status& status) {
  switch (status.code()) {
    case Code::kInternal: return "internal error: the server's log has the details";
    case Code::kIoError: return "storage failed: the server's log has the details";
    case Code::kInUse: return "the data directory is in use";
    case Code::kCorruption:
      return "stored data of this collection is damaged and is not served: the server's log has "
             "the details";
    case Code::kStorageFull: return "no space left to store this";
    default: return status.message();
  }
}

std::string error_body(std::string_view code, std::string_view message) {
  std::string out;
  JsonWriter(out)
      .begin_object()
      .key("code")
      .string(code)
      .key("message")
      .string(message)
      .end_object();
  return out;
}

// ---- Requests ----------------------------------------------------------------------------------

Result<std::string> parse_collection_name(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return invalid_argument("name is blank");
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  if (text.size() > kNameCharsMax) {
    return invalid_argument(
        fmt::format("name has {} characters: at most {}", text.size(), kNameCharsMax));
  }
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (!plain || text == "." || text.find("..") != std::string_view::npos) {
    return invalid_argument("name must be of letters, digits, '.', '_' and '-', without \"..\"");
  }
  return std::string(text);
}

Result<PointId> parse_point_id(std::string_view text, IdType id_type) {
  if (id_type == IdType::kString) {
    if (text.empty() || text.size() > kStringIdBytesMax) {
      return invalid_argument(
          fmt::format("id must be of 1 to {} bytes: got {}", kStringIdBytesMax, text.size()));
    }
    return PointId(text);
  }
  uint64_t number = 0;
  bool good = !text.empty() && (text.size() == 1 || text.front() != '0');
  for (const char c : text) {
    if (c < '0' || c > '9') {
      good = false;
      break;
    }
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    if (number > (UINT64_MAX - digit) / 10) {
      good = false;
      break;
    }
    number = number * 10 + digit;
  }
  if (!good) return invalid_argument("id must be a whole number from 0 to 2^64-1");
  return PointId(number);
}

Result<DistanceBody> decode_distance(JsonReader& reader, std::string_view body,
                                     const WireLimits& limits) {
  DistanceBody out;
  bool left = false, right = false;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "left") {
      left = true;
      return value.read_floats(limits.dimension_max, limits.strict_finite, out.left);
    }
    if (key == "right") {
      right = true;
      return value.read_floats(limits.dimension_max, limits.strict_finite, out.right);
    }
    if (key == "metric") return assign(out.metric, read_choice(value, kMetricNames));
    return {};
  }));
  if (!left) return missing("left");
  if (!right) return missing("right");
  return out;
}

Result<CreateCollectionBody> decode_create_collection(JsonReader& reader, std::string_view body,
                                                      const WireLimits& limits) {
  CreateCollectionBody out;
  out.options.strict_finite = limits.strict_finite;
  bool name = false;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    CollectionOptions& options = out.options;
    if (key == "name") {
      name = true;
      ASSIGN_OR_RETURN(const std::string_view text, value.read_string());
      return assign(out.name, parse_collection_name(text));
    }
    if (key == "dimension") {
      ASSIGN_OR_RETURN(const uint64_t number, read_bounded(value, 1, limits.dimension_max));
      options.dimension = static_cast<uint32_t>(number);
      return {};
    }
    if (key == "strict_finite") return assign(options.strict_finite, value.read_bool());
    if (key == "metric") {
      if (value.kind() == JsonKind::kNull) return value.skip();
      return assign(options.metric, read_choice(value, kMetricNames));
    }
    if (key == "id_type") return assign(options.id_type, read_choice(value, kIdTypeNames));
    return {};
  }));
  if (!name) return missing("name");
  if (out.options.dimension == 0) return missing("dimension");
  return out;
}

namespace {

/// Reads "values" and "payload" of one point; tells whether `key` was one of them.
Status read_point_field(std::string_view key, JsonValue& value, const CollectionOptions& options,
                        Point& point, bool& has_values) {
  if (key == "values") {
    has_values = true;
    point.values.reserve(options.dimension);
    return value.read_floats(options.dimension, options.strict_finite, point.values);
  }
  if (key == "payload") return read_payload(value, point.payload);
  return {};
}

Status check_dimension(const Point& point, bool has_values, const CollectionOptions& options) {
  if (!has_values) return missing("values");
  if (point.values.size() != options.dimension) {
    return invalid_argument(fmt::format("dimension differs from the collection's: got {}, want {}",
                                        point.values.size(), options.dimension));
  }
  return {};
}

}  // namespace

Status decode_point_body(JsonReader& reader, std::string_view body,
                         const CollectionOptions& options, Point& point) {
  bool has_values = false;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) {
    return read_point_field(key, value, options, point, has_values);
  }));
  return check_dimension(point, has_values, options);
}

Result<std::vector<Point>> decode_upsert(JsonReader& reader, std::string_view body,
                                         const CollectionOptions& options,
                                         const WireLimits& limits) {
  std::vector<Point> out;
  bool has_points = false;
  const auto read_point = [&](JsonValue& item) -> Status {
    if (out.size() == limits.batch_points_max) {
      return invalid_argument(
          fmt::format("points must hold between 1 and {} points", limits.batch_points_max));
    }
    Point& point = out.emplace_back();
    bool has_id = false, has_values = false;
    RETURN_IF_ERROR(item.read_object([&](std::string_view key, JsonValue& value) -> Status {
      if (key == "id") {
        has_id = true;
        return assign(point.id, read_id(value, options.id_type));
      }
      return read_point_field(key, value, options, point, has_values);
    }));
    if (!has_id) return missing("id");
    return check_dimension(point, has_values, options);
  };
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key != "points") return {};
    has_points = true;
    return value.read_array([&](JsonValue& item) -> Status {
      const Status status = read_point(item);
      if (status.ok()) return status;
      return status.with_context(fmt::format("points[{}]", out.empty() ? 0 : out.size() - 1));
    });
  }));
  if (!has_points) return missing("points");
  if (out.empty()) {
    return invalid_argument(
        fmt::format("points must hold between 1 and {} points", limits.batch_points_max));
  }
  return out;
}

Result<PointsBody> decode_get(JsonReader& reader, std::string_view body, IdType id_type,
                              const WireLimits& limits) {
  PointsBody out;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "ids") return read_ids(value, id_type, limits.page_limit_max, out.ids);
    if (key == "include_payload") return assign(out.include_payload, value.read_bool());
    if (key == "include_values") return assign(out.include_values, value.read_bool());
    return {};
  }));
  if (out.ids.empty()) return missing("ids");
  return out;
}

Result<PointsBody> decode_delete(JsonReader& reader, std::string_view body, IdType id_type) {
  PointsBody out;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "ids") return read_ids(value, id_type, kRequestIdsMax, out.ids);
    if (key == "filter") return read_filter(value, out.filter);
    return {};
  }));
  if (out.ids.empty() == !out.filter.has_value()) {
    return invalid_argument("give either ids or filter");
  }
  return out;
}

Result<PointsBody> decode_payload_set(JsonReader& reader, std::string_view body, IdType id_type) {
  PointsBody out;
  bool has_payload = false;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "points") return read_ids(value, id_type, kRequestIdsMax, out.ids);
    if (key == "payload") {
      if (value.kind() != JsonKind::kObject) return value.must_be("an object");
      has_payload = true;
      return read_payload(value, out.payload);
    }
    return {};
  }));
  if (out.ids.empty()) return missing("points");
  if (!has_payload) return missing("payload");
  return out;
}

Result<PointsBody> decode_payload_delete(JsonReader& reader, std::string_view body,
                                         IdType id_type) {
  PointsBody out;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "points") return read_ids(value, id_type, kRequestIdsMax, out.ids);
    if (key != "keys") return {};
    return value.read_array([&](JsonValue& item) -> Status {
      if (out.keys.size() == kRequestKeysMax) {
        return item.must_be(fmt::format("at most {} keys", kRequestKeysMax));
      }
      ASSIGN_OR_RETURN(const std::string_view text, item.read_string());
      if (is_blank(text)) return invalid_argument("a payload key is blank");
      out.keys.emplace_back(text);
      return {};
    });
  }));
  if (out.ids.empty()) return missing("points");
  if (out.keys.empty()) return missing("keys");
  return out;
}

Result<ScrollBody> decode_scroll(JsonReader& reader, std::string_view body, IdType id_type,
                                 const WireLimits& limits) {
  ScrollBody out;
  out.limit = std::min<uint64_t>(out.limit, limits.page_limit_max);
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "limit") return assign(out.limit, read_bounded(value, 1, limits.page_limit_max));
    if (key == "cursor") {
      if (value.kind() == JsonKind::kNull) return value.skip();
      return assign(out.cursor, read_id(value, id_type));
    }
    if (key == "filter") return read_filter(value, out.filter);
    if (key == "include_payload") return assign(out.include_payload, value.read_bool());
    if (key == "include_values") return assign(out.include_values, value.read_bool());
    return {};
  }));
  return out;
}

Result<std::optional<Filter>> decode_count(JsonReader& reader, std::string_view body) {
  std::optional<Filter> out;
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    return key == "filter" ? read_filter(value, out) : Status();
  }));
  return Result<std::optional<Filter>>(std::move(out));
}

namespace {

Status read_query(JsonValue& value, const CollectionOptions& options, SearchBody& out) {
  // Room for one more vector; a batch grows by doubling.
  if (out.ends.empty()) out.values.reserve(options.dimension);
  RETURN_IF_ERROR(value.read_floats(options.dimension, options.strict_finite, out.values));
  out.ends.push_back(out.values.size());
  return {};
}

Status read_queries(JsonValue& value, const CollectionOptions& options, const WireLimits& limits,
                    SearchBody& out) {
  return value.read_array([&](JsonValue& item) -> Status {
    if (out.ends.size() == limits.batch_queries_max) {
      return value.must_be(fmt::format("between 1 and {} queries", limits.batch_queries_max));
    }
    return read_query(item, options, out);
  });
}

/// The fields every shape of search has.
Status read_search_option(std::string_view key, JsonValue& value, const WireLimits& limits,
                          SearchBody& out) {
  SearchRequest& request = out.request;
  // Clients with optional fields send null for the unset ones.
  if (value.kind() == JsonKind::kNull) return value.skip();
  if (key == "metric") return assign(request.metric, read_choice(value, kMetricNames));
  if (key == "mode") return assign(request.mode, read_choice(value, kModeNames));
  if (key == "filter") return read_filter(value, out.filter);
  if (key == "include_payload") return assign(request.include_payload, value.read_bool());
  if (key == "include_values") return assign(request.include_values, value.read_bool());
  if (key == "explain") return assign(request.explain, value.read_bool());
  if (key == "limit") {
    ASSIGN_OR_RETURN(const uint64_t number, read_bounded(value, 1, limits.topk_limit_max));
    request.limit = static_cast<uint32_t>(number);
    return {};
  }
  if (key == "offset") {
    ASSIGN_OR_RETURN(const uint64_t number, read_bounded(value, 0, kListOffsetMax));
    request.offset = static_cast<uint32_t>(number);
    return {};
  }
  if (key == "param") {
    ASSIGN_OR_RETURN(const uint64_t number, read_bounded(value, 1, kSearchParamMax));
    request.param = static_cast<uint32_t>(number);
    return {};
  }
  if (key == "target_recall") {
    ASSIGN_OR_RETURN(const double number, value.read_double());
    if (!(number > 0 && number <= 1)) return value.must_be("above 0 and at most 1");
    request.target_recall = number;
    return {};
  }
  if (key == "score_threshold") {
    ASSIGN_OR_RETURN(const double number, value.read_double());
    if (!std::isfinite(static_cast<float>(number))) return value.must_be("within the range of f32");
    request.score_threshold = static_cast<float>(number);
    return {};
  }
  return {};
}

}  // namespace

Result<SearchBody> decode_search(JsonReader& reader, std::string_view body, SearchShape shape,
                                 const CollectionOptions& options, const WireLimits& limits) {
  SearchBody out;
  const bool batch = shape == SearchShape::kBatch;
  const std::string_view field = batch ? "queries" : "query";
  RETURN_IF_ERROR(reader.read(body, [&](std::string_view key, JsonValue& value) -> Status {
    if (key != field) return read_search_option(key, value, limits, out);
    return batch ? read_queries(value, options, limits, out) : read_query(value, options, out);
  }));
  if (out.ends.empty()) return missing(field);
  for (size_t i = 0; i < out.ends.size(); ++i) {
    if (out.query(i).size() != options.dimension) {
      return invalid_argument(
          fmt::format("dimension differs from the collection's: got {}, want {}",
                      out.query(i).size(), options.dimension));
    }
  }
  if (shape == SearchShape::kTop1) {
    out.request.limit = 1;
    out.request.offset = 0;
  }
  return out;
}

// ---- Responses ---------------------------------------------------------------------------------

namespace {

void write_id(JsonWriter& writer, const PointId& id, IdStyle style) {
  if (id.type() == IdType::kString) {
    writer.string(id.text());
  } else if (style.as_strings) {
    writer.string(id.to_string());
  } else {
    writer.number(id.number());
  }
}

void write_collection(JsonWriter& writer, const CollectionInfo& info) {
  writer.begin_object();
  writer.key("name").string(info.name);
  writer.key("dimension").number(uint64_t{info.options.dimension});
  writer.key("strict_finite").boolean(info.options.strict_finite);
  writer.key("point_count").number(info.points_count);
  writer.key("metric");
  if (info.options.metric) {
    writer.string(name_of(kMetricNames, *info.options.metric));
  } else {
    writer.null();
  }
  writer.key("id_type").string(name_of(kIdTypeNames, info.options.id_type));
  writer.end_object();
}

void write_point(JsonWriter& writer, const Point& point, bool values, bool payload, IdStyle style) {
  writer.begin_object().key("id");
  write_id(writer, point.id, style);
  if (values) writer.key("values").floats(point.values);
  if (payload) writer.key("payload").object(point.payload);
  writer.end_object();
}

/// "mode", "recall_at_k" and, on demand, the plan.
void write_how(JsonWriter& writer, const SearchResult& result, bool explain) {
  writer.key("mode").string(name_of(kModeNames, result.mode));
  if (result.recall_at_k) writer.key("recall_at_k").number(*result.recall_at_k);
  if (!explain) return;
  writer.key("explain").begin_object().key("segments").begin_array();
  for (const SegmentPlan& plan : result.plan) {
    writer.begin_object();
    writer.key("segment").number(plan.segment_id).key("plan").string(plan.plan);
    writer.key("rows").number(plan.rows).key("candidates").number(plan.candidates);
    writer.key("estimated").number(plan.estimated);
    writer.end_object();
  }
  writer.end_array();
  writer.key("scan_us").number(result.scan_us);
  writer.key("fetch_us").number(result.fetch_us).end_object();
}

void write_hit_fields(JsonWriter& writer, const Hit& hit) {
  if (hit.payload) writer.key("payload").object(*hit.payload);
  if (hit.values) writer.key("values").floats(*hit.values);
}

void write_hits(JsonWriter& writer, const SearchResult& result, IdStyle style) {
  writer.key("hits").begin_array();
  for (const Hit& hit : result.hits) {
    writer.begin_object().key("id");
    write_id(writer, hit.id, style);
    writer.key("value").number(hit.score);
    write_hit_fields(writer, hit);
    writer.end_object();
  }
  writer.end_array();
}

}  // namespace

std::string encode_distance(Metric metric, float value) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("metric").string(name_of(kMetricNames, metric));
  writer.key("value").number(value).end_object();
  return out;
}

std::string encode_collection(const CollectionInfo& info) {
  std::string out;
  JsonWriter writer(out);
  write_collection(writer, info);
  return out;
}

std::string encode_collections(const std::vector<CollectionInfo>& infos) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("collections").begin_array();
  for (const CollectionInfo& info : infos) write_collection(writer, info);
  writer.end_array().end_object();
  return out;
}

std::string encode_collection_deleted(std::string_view name) {
  std::string out;
  JsonWriter(out).begin_object().key("name").string(name).key("deleted").boolean(true).end_object();
  return out;
}

std::string encode_put(const PointId& id, bool created, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("id");
  write_id(writer, id, style);
  writer.key("created").boolean(created).end_object();
  return out;
}

std::string encode_point_deleted(const PointId& id, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("id");
  write_id(writer, id, style);
  writer.key("deleted").boolean(true).end_object();
  return out;
}

std::string encode_upsert(const std::vector<Point>& points, const UpsertResult& result,
                          IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object();
  writer.key("created").number(result.created).key("updated").number(result.updated);
  writer.key("results").begin_array();
  for (size_t i = 0; i < points.size(); ++i) {
    writer.begin_object().key("id");
    write_id(writer, points[i].id, style);
    writer.key("created").boolean(i < result.created_flags.size() && result.created_flags[i]);
    writer.end_object();
  }
  writer.end_array().end_object();
  return out;
}

std::string encode_point(const Point& point, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  write_point(writer, point, true, true, style);
  return out;
}

std::string encode_get(const GetResult& result, const GetOptions& options, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("points").begin_array();
  for (const Point& point : result.points) {
    write_point(writer, point, options.include_values, options.include_payload, style);
  }
  writer.end_array().key("missing").begin_array();
  for (const PointId& id : result.missing) write_id(writer, id, style);
  writer.end_array().end_object();
  return out;
}

namespace {

void write_cursor(JsonWriter& writer, std::string_view key, const ListPage& page, IdStyle style) {
  writer.key(key);
  if (page.more && !page.points.empty()) {
    write_id(writer, page.points.back().id, style);
  } else {
    writer.null();
  }
}

void write_page(JsonWriter& writer, const ListPage& page, const ListRequest& request,
                IdStyle style) {
  writer.key("points").begin_array();
  for (const Point& point : page.points) {
    write_point(writer, point, request.include_values, request.include_payload, style);
  }
  writer.end_array();
}

}  // namespace

std::string encode_list(const ListPage& page, const ListRequest& request, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object();
  write_page(writer, page, request, style);
  writer.key("total").number(page.total);
  writer.key("next_offset");
  if (page.more && !request.after_id) {
    writer.number(request.offset + page.points.size());
  } else {
    writer.null();
  }
  write_cursor(writer, "next_after_id", page, style);
  writer.end_object();
  return out;
}

std::string encode_scroll(const ListPage& page, const ListRequest& request, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object();
  write_page(writer, page, request, style);
  write_cursor(writer, "next_cursor", page, style);
  writer.end_object();
  return out;
}

std::string encode_count(std::string_view field, uint64_t value) {
  std::string out;
  JsonWriter(out).begin_object().key(field).number(value).end_object();
  return out;
}

std::string encode_top1(const SearchResult& result, bool explain, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  const Hit& hit = result.hits.front();
  writer.begin_object().key("id");
  write_id(writer, hit.id, style);
  writer.key("metric").string(name_of(kMetricNames, result.metric));
  writer.key("value").number(hit.score);
  write_how(writer, result, explain);
  write_hit_fields(writer, hit);
  writer.end_object();
  return out;
}

std::string encode_topk(const SearchResult& result, bool explain, IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("metric").string(name_of(kMetricNames, result.metric));
  write_how(writer, result, explain);
  write_hits(writer, result, style);
  writer.end_object();
  return out;
}

std::string encode_topk_batch(const std::vector<SearchResult>& results, bool explain,
                              IdStyle style) {
  std::string out;
  JsonWriter writer(out);
  const Metric metric = results.empty() ? Metric::kDot : results.front().metric;
  writer.begin_object().key("metric").string(name_of(kMetricNames, metric));
  writer.key("results").begin_array();
  for (const SearchResult& result : results) {
    writer.begin_object();
    write_how(writer, result, explain);
    write_hits(writer, result, style);
    writer.end_object();
  }
  writer.end_array().end_object();
  return out;
}

namespace {

void write_index_stats(JsonWriter& writer, const IndexStats& index) {
  writer.begin_object().key("kind").string(index.kind);
  writer.key("metric").string(name_of(kMetricNames, index.metric));
  writer.key("state").string("ready").key("codec").string(index.codec);
  writer.key("disk_bytes").number(index.disk_bytes).key("hot_bytes").number(index.hot_bytes);
  writer.key("rows_outside").number(index.rows_outside);
  writer.key("recall_curve").begin_array();
  for (const RecallCurvePoint& point : index.curve) {
    writer.begin_object().key("k").number(uint64_t{point.k}).key("ef").number(uint64_t{point.ef});
    writer.key("recall").number(point.recall).key("recall_low").number(point.recall_low);
    writer.end_object();
  }
  writer.end_array().end_object();
}

/// Null means before the first audit.
void write_audit(JsonWriter& writer, const RecallAudit& audit) {
  writer.begin_object().key("samples").number(audit.samples);
  if (audit.samples > 0) {
    writer.key("promised").number(audit.promised).key("measured").number(audit.measured);
    writer.key("low").number(audit.measured_low).key("high").number(audit.measured_high);
    writer.key("age_seconds").number(audit.age_seconds);
  } else {
    for (const char* key : {"promised", "measured", "low", "high", "age_seconds"}) {
      writer.key(key).null();
    }
  }
  writer.key("drifts").number(audit.drifts).key("remeasured").number(audit.remeasured);
  writer.end_object();
}

}  // namespace

std::string encode_stats(const CollectionStats& stats) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("collection");
  write_collection(writer, stats.info);
  writer.key("disk_bytes").number(stats.disk_bytes);
  writer.key("memory_bytes").number(stats.memory_bytes);
  writer.key("index_bytes").number(stats.index_bytes);
  writer.key("audit");
  write_audit(writer, stats.audit);
  writer.key("segments").begin_array();
  for (const SegmentStats& segment : stats.segments) {
    writer.begin_object();
    writer.key("segment").number(segment.id).key("sealed").boolean(segment.sealed);
    writer.key("rows").number(segment.rows).key("rows_deleted").number(segment.rows_deleted);
    writer.key("disk_bytes").number(segment.disk_bytes);
    writer.key("memory_bytes").number(segment.memory_bytes);
    writer.key("in_place").string(segment.in_place);
    writer.key("row_format").string(segment.row_format);
    writer.key("indexes").begin_array();
    for (const IndexStats& index : segment.indexes) write_index_stats(writer, index);
    writer.end_array().end_object();
  }
  writer.end_array().end_object();
  return out;
}

std::string encode_optimized(std::string_view name) {
  std::string out;
  JsonWriter(out)
      .begin_object()
      .key("name")
      .string(name)
      .key("optimized")
      .boolean(true)
      .end_object();
  return out;
}

std::string encode_backup(const BackupReport& report) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("number").number(report.number);
  writer.key("last_lsn").number(report.last_lsn);
  writer.key("files").number(report.files);
  writer.key("files_shared").number(report.files_shared);
  writer.key("raw_bytes").number(report.raw_bytes);
  writer.key("packed_bytes").number(report.packed_bytes);
  writer.key("written_bytes").number(report.written_bytes);
  writer.key("removed").number(report.removed);
  writer.key("removed_bytes").number(report.removed_bytes);
  writer.end_object();
  return out;
}

std::string encode_live(uint64_t uptime_ms) {
  std::string out;
  JsonWriter(out)
      .begin_object()
      .key("status")
      .string("live")
      .key("uptime_ms")
      .number(uptime_ms)
      .end_object();
  return out;
}

std::string encode_ready(uint64_t uptime_ms, bool engine_loaded, bool storage_available,
                         const std::vector<std::string>& quarantined) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("status").string("ready").key("uptime_ms").number(uptime_ms);
  writer.key("checks").begin_object().key("engine_loaded").boolean(engine_loaded);
  writer.key("storage_available").boolean(storage_available).end_object();
  if (!quarantined.empty()) {
    writer.key("quarantined").number(uint64_t{quarantined.size()});
  }
  writer.end_object();
  return out;
}

std::string encode_version(std::string_view version_text, std::string_view simd) {
  std::string out;
  JsonWriter(out)
      .begin_object()
      .key("name")
      .string("aionbd")
      .key("version")
      .string(version_text)
      .key("simd")
      .string(simd)
      .end_object();
  return out;
}

}  // namespace aionbd
