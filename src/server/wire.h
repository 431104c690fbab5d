// What travels: JSON bodies to the public types and back. The only file pair that spells the
// contract's field names, and the one switch from `Code` to HTTP status.
//
// Decoders check shape (types, bounds, names); what depends on stored data is the engine's to say.
// An unknown key in a request body is checked as JSON and then ignored, as earlier servers did; in
// a filter clause it is an error, because there it would silently change the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/collection.h"
#include "aionbd/database.h"
#include "aionbd/status.h"
#include "server/json.h"

namespace aionbd {

/// Bounds a deployment sets; from Settings.
struct WireLimits {
  uint64_t dimension_max = 4096;
  uint64_t page_limit_max = 1000;
  uint64_t topk_limit_max = 1000;
  uint64_t batch_points_max = 256;
  uint64_t batch_queries_max = 256;
  bool strict_finite = true;
};

/// HTTP status and contract code of an error.
struct WireError {
  int status = 500;
  std::string_view code;
};
WireError wire_error_of(Code code);
/// Message fit for a client: texts of codes that may name files are replaced.
std::string public_message(const Status& status);
/// {"code":...,"message":...}
std::string error_body(std::string_view code, std::string_view message);

// ---- Requests ----------------------------------------------------------------------------------

struct DistanceBody {
  std::vector<float> left, right;
  Metric metric = Metric::kDot;
};
Result<DistanceBody> decode_distance(JsonReader& reader, std::string_view body,
                                     const WireLimits& limits);

struct CreateCollectionBody {
  std::string name;
  CollectionOptions options;
};
Result<CreateCollectionBody> decode_create_collection(JsonReader& reader, std::string_view body,
                                                      const WireLimits& limits);

/// Body of a single-point PUT; `point.id` stays as the caller set it.
Status decode_point_body(JsonReader& reader, std::string_view body,
                         const CollectionOptions& options, Point& point);

Result<std::vector<Point>> decode_upsert(JsonReader& reader, std::string_view body,
                                         const CollectionOptions& options,
                                         const WireLimits& limits);

/// Bodies of points/get, points/delete, points/payload/set and points/payload/delete.
struct PointsBody {
  std::vector<PointId> ids;
  std::optional<Filter> filter;
  Payload payload;
  std::vector<std::string> keys;
  bool include_payload = true;
  bool include_values = true;
};
Result<PointsBody> decode_get(JsonReader& reader, std::string_view body, IdType id_type,
                              const WireLimits& limits);
Result<PointsBody> decode_delete(JsonReader& reader, std::string_view body, IdType id_type);
Result<PointsBody> decode_payload_set(JsonReader& reader, std::string_view body, IdType id_type);
Result<PointsBody> decode_payload_delete(JsonReader& reader, std::string_view body, IdType id_type);

struct ScrollBody {
  uint64_t limit = 100;
  std::optional<PointId> cursor;
  std::optional<Filter> filter;
  bool include_payload = true;
  bool include_values = false;
};
Result<ScrollBody> decode_scroll(JsonReader& reader, std::string_view body, IdType id_type,
                                 const WireLimits& limits);

/// Nothing: count all.
Result<std::optional<Filter>> decode_count(JsonReader& reader, std::string_view body);

enum class SearchShape : uint8_t { kTop1, kTopK, kBatch };
/// Owns what a SearchRequest only views.
struct SearchBody {
  std::vector<float> values;  // one query, or all of a batch one behind the other
  std::vector<size_t> ends;   // query i is values[ends[i-1] .. ends[i])
  std::optional<Filter> filter;
  SearchRequest request;  // without query and filter

  std::span<const float> query(size_t i) const {
    const size_t begin = i == 0 ? 0 : ends[i - 1];
    return std::span<const float>(values).subspan(begin, ends[i] - begin);
  }
};
Result<SearchBody> decode_search(JsonReader& reader, std::string_view body, SearchShape shape,
                                 const CollectionOptions& options, const WireLimits& limits);

/// Trims outer blanks and checks the rules of collection names.
Result<std::string> parse_collection_name(std::string_view text);
/// An id as written in a path or query.
Result<PointId> parse_point_id(std::string_view text, IdType id_type);

// ---- Responses ---------------------------------------------------------------------------------

/// How ids are printed: numbers, or text because the caller asked (or the ids are text).
struct IdStyle {
  bool as_strings = false;
};

std::string encode_distance(Metric metric, float value);
std::string encode_collection(const CollectionInfo& info);
std::string encode_collections(const std::vector<CollectionInfo>& infos);
std::string encode_collection_deleted(std::string_view name);
std::string encode_put(const PointId& id, bool created, IdStyle style);
std::string encode_point_deleted(const PointId& id, IdStyle style);
std::string encode_upsert(const std::vector<Point>& points, const UpsertResult& result,
                          IdStyle style);
std::string encode_point(const Point& point, IdStyle style);
std::string encode_get(const GetResult& result, const GetOptions& options, IdStyle style);
std::string encode_list(const ListPage& page, const ListRequest& request, IdStyle style);
std::string encode_scroll(const ListPage& page, const ListRequest& request, IdStyle style);
std::string encode_count(std::string_view field, uint64_t value);
/// REQUIRES: !result.hits.empty().
std::string encode_top1(const SearchResult& result, bool explain, IdStyle style);
std::string encode_topk(const SearchResult& result, bool explain, IdStyle style);
std::string encode_topk_batch(const std::vector<SearchResult>& results, bool explain,
                              IdStyle style);
std::string encode_stats(const CollectionStats& stats);
std::string encode_optimized(std::string_view name);
std::string encode_backup(const BackupReport& report);
std::string encode_live(uint64_t uptime_ms);
std::string encode_ready(uint64_t uptime_ms, bool engine_loaded, bool storage_available,
                         const std::vector<std::string>& quarantined);
std::string encode_version(std::string_view version, std::string_view simd);

}  // namespace aionbd
