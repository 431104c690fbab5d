// Handlers of points: upsert, read, list, scroll, count, delete, payloads. Each is thin:
// decode, one public call, encode.
#include <fmt/format.h>

#include "server/context.h"
#include "server/handlers.h"

namespace aionbd {
namespace {

/// A query value that must be true or false; `fallback` when absent.
Result<bool> query_flag(const Call& call, std::string_view key, bool fallback) {
  const std::string* text = call.query(key);
  if (text == nullptr) return fallback;
  if (*text == "true") return true;
  if (*text == "false") return false;
  return invalid_argument(fmt::format("{} must be true or false", key));
}

/// A decimal query value within bounds; `fallback` when absent.
Result<uint64_t> query_number(const Call& call, std::string_view key, uint64_t fallback,
                              uint64_t min, uint64_t max) {
  const std::string* text = call.query(key);
  if (text == nullptr) return fallback;
  // The syntax of a u64 id is that of any number.
  const Result<PointId> parsed = parse_point_id(*text, IdType::kU64);
  if (!parsed.has_value()) {
    return invalid_argument(fmt::format("{} must be a whole number from {} to {}", key, min, max));
  }
  const uint64_t number = (*parsed).number();
  if (number < min || number > max) {
    return invalid_argument(
        fmt::format("{} must be between {} and {}: got {}", key, min, max, number));
  }
  return number;
}

Result<IdStyle> id_style(const Call& call) {
  ASSIGN_OR_RETURN(const bool as_strings, query_flag(call, "ids_as_strings", false));
  return IdStyle{as_strings};
}

Status no_such_point(const PointId& id) {
  return not_found(fmt::format("no such point: {}", id.to_string()));
}

const Filter* pointer_to(const std::optional<Filter>& filter) {
  return filter ? &*filter : nullptr;
}

/// Thread safety: single owner.
class UnfinishedUpsert final : public UnfinishedAnswer {
 public:
  UnfinishedUpsert(std::vector<Point> points, bool single, IdStyle style)
      : points_(std::move(points)), single_(single), style_(style) {}

  Status begin(Collection& collection, Deadline deadline) {
    ASSIGN_OR_RETURN(pending_, collection.begin_upsert(points_, deadline));
    return {};
  }
  bool ready() const override { return pending_->decided(); }
  void wait() override { pending_->wait(); }
  Status finish(HttpResponse& response) override {
    ASSIGN_OR_RETURN(const UpsertResult result, pending_->finish());
    response.body = single_ ? encode_put(points_.front().id, result.created > 0, style_)
                            : encode_upsert(points_, result, style_);
    return {};
  }

 private:
  const std::vector<Point> points_;
  const bool single_;  // PUT of one point
  const IdStyle style_;
  std::unique_ptr<PendingUpsert> pending_;
};

Status begin_upsert(Call& call, Collection& collection, std::vector<Point> points, bool single,
                    IdStyle style) {
  // What allocates comes first: once it is begun, an upsert is not taken back.
  auto rest = std::make_unique<UnfinishedUpsert>(std::move(points), single, style);
  RETURN_IF_ERROR(rest->begin(collection, call.request.deadline));
  call.rest = std::move(rest);
  return {};
}

/// Decode, one change of payloads, how many points it changed.
template <typename Decode, typename Change>
Status change_payloads(Call& call, Decode decode, Change change) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const PointsBody body, decode(call.server.reader(), call.request.body,
                                                 collection->info().options.id_type));
  ASSIGN_OR_RETURN(const uint64_t updated, change(*collection, body));
  call.response.body = encode_count("updated", updated);
  return {};
}

}  // namespace

Status handle_put_point(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  const CollectionOptions options = collection->info().options;
  std::vector<Point> points(1);
  ASSIGN_OR_RETURN(points[0].id, parse_point_id(call.param(1), options.id_type));
  RETURN_IF_ERROR(decode_point_body(call.server.reader(), call.request.body, options, points[0]));
  return begin_upsert(call, *collection, std::move(points), true, style);
}

Status handle_upsert(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(std::vector<Point> points,
                   decode_upsert(call.server.reader(), call.request.body,
                                 collection->info().options, call.server.limits()));
  return begin_upsert(call, *collection, std::move(points), false, style);
}

Status handle_get_point(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const PointId id,
                   parse_point_id(call.param(1), collection->info().options.id_type));
  ASSIGN_OR_RETURN(const GetResult result, collection->get(std::span(&id, 1), GetOptions{}));
  if (result.points.empty()) return no_such_point(id);
  call.response.body = encode_point(result.points.front(), style);
  return {};
}

Status handle_delete_point(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const PointId id,
                   parse_point_id(call.param(1), collection->info().options.id_type));
  ASSIGN_OR_RETURN(const uint64_t removed,
                   collection->remove(std::span(&id, 1), call.request.deadline));
  if (removed == 0) return no_such_point(id);
  call.response.body = encode_point_deleted(id, style);
  return {};
}

Status handle_list_points(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  const uint64_t limit_max = call.server.limits().page_limit_max;
  ListRequest request;
  request.deadline = call.request.deadline;
  ASSIGN_OR_RETURN(request.limit,
                   query_number(call, "limit", std::min<uint64_t>(100, limit_max), 1, limit_max));
  ASSIGN_OR_RETURN(request.offset, query_number(call, "offset", 0, 0, UINT64_MAX));
  if (request.offset > kListOffsetMax) {
    return invalid_argument(
        fmt::format("offset must be at most {}: use after_id to go further", kListOffsetMax));
  }
  if (const std::string* after = call.query("after_id")) {
    if (request.offset > 0) return invalid_argument("give either offset or after_id");
    ASSIGN_OR_RETURN(request.after_id, parse_point_id(*after, collection->info().options.id_type));
  }
  ASSIGN_OR_RETURN(request.include_payload, query_flag(call, "include_payload", false));
  ASSIGN_OR_RETURN(request.include_values, query_flag(call, "include_values", false));
  ASSIGN_OR_RETURN(const ListPage page, collection->list(request));
  call.response.body = encode_list(page, request, style);
  return {};
}

Status handle_get_points(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const PointsBody body,
                   decode_get(call.server.reader(), call.request.body,
                              collection->info().options.id_type, call.server.limits()));
  const GetOptions options{body.include_payload, body.include_values};
  ASSIGN_OR_RETURN(const GetResult result, collection->get(body.ids, options));
  call.response.body = encode_get(result, options, style);
  return {};
}

Status handle_delete_points(Call& call) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const PointsBody body, decode_delete(call.server.reader(), call.request.body,
                                                        collection->info().options.id_type));
  uint64_t deleted = 0;
  if (body.filter) {
    ASSIGN_OR_RETURN(deleted, collection->remove_matching(*body.filter, call.request.deadline));
  } else {
    ASSIGN_OR_RETURN(deleted, collection->remove(body.ids, call.request.deadline));
  }
  call.response.body = encode_count("deleted", deleted);
  return {};
}

Status handle_scroll(Call& call) {
  ASSIGN_OR_RETURN(const IdStyle style, id_style(call));
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const ScrollBody body,
                   decode_scroll(call.server.reader(), call.request.body,
                                 collection->info().options.id_type, call.server.limits()));
  ListRequest request;
  request.deadline = call.request.deadline;
  request.limit = body.limit;
  request.after_id = body.cursor;
  request.filter = pointer_to(body.filter);
  request.include_payload = body.include_payload;
  request.include_values = body.include_values;
  ASSIGN_OR_RETURN(const ListPage page, collection->list(request));
  call.response.body = encode_scroll(page, request, style);
  return {};
}

Status handle_count(Call& call) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const std::optional<Filter> filter,
                   decode_count(call.server.reader(), call.request.body));
  ASSIGN_OR_RETURN(const uint64_t count,
                   collection->count(pointer_to(filter), call.request.deadline));
  call.response.body = encode_count("count", count);
  return {};
}

Status handle_payload_set(Call& call) {
  return change_payloads(
      call, decode_payload_set, [&](Collection& collection, const PointsBody& body) {
        return collection.set_payload(body.ids, body.payload, call.request.deadline);
      });
}

Status handle_payload_delete(Call& call) {
  return change_payloads(
      call, decode_payload_delete, [&](Collection& collection, const PointsBody& body) {
        return collection.delete_payload_keys(body.ids, body.keys, call.request.deadline);
      });
}

}  // namespace aionbd
