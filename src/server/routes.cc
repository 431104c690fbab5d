#include "server/routes.h"

#include <algorithm>
#include <array>
#include <optional>

#include "server/handlers.h"

namespace aionbd {
namespace {

constexpr HttpMethod kGet = HttpMethod::kGet;
constexpr HttpMethod kPost = HttpMethod::kPost;
constexpr HttpMethod kPut = HttpMethod::kPut;
constexpr HttpMethod kDelete = HttpMethod::kDelete;
using C = RouteClass;

constexpr auto kRoutes = std::to_array<Route>({
    {kGet, "/live", Scope::kNone, C::kHealth, false, handle_live, "The process runs."},
    {kGet, "/livez", Scope::kNone, C::kHealth, false, handle_live, "As /live."},
    {kGet, "/healthz", Scope::kNone, C::kHealth, false, handle_live, "As /live."},
    {kGet, "/ready", Scope::kNone, C::kHealth, false, handle_ready, "The engine takes requests."},
    {kGet, "/readyz", Scope::kNone, C::kHealth, false, handle_ready, "As /ready."},
    {kGet, "/version", Scope::kRead, C::kHealth, false, handle_version, "Version of the server."},
    {kGet, "/metrics", Scope::kRead, C::kHealth, false, handle_metrics,
     "Metrics as one JSON object, or Prometheus text if Accept asks for it."},
    {kGet, "/metrics/prometheus", Scope::kRead, C::kHealth, false, handle_metrics_prometheus,
     "Metrics as Prometheus text."},
    {kPost, "/distance", Scope::kRead, C::kRead, true, handle_distance,
     "Distance between two vectors."},
    {kPost, "/backup", Scope::kAdmin, C::kAdmin, false, handle_backup,
     "Add a backup to those in AIONBD_BACKUP_DIR; answers when it is complete."},
    {kPost, "/collections", Scope::kAdmin, C::kAdmin, true, handle_create_collection,
     "Create a collection."},
    {kGet, "/collections", Scope::kRead, C::kRead, false, handle_list_collections,
     "List the collections."},
    {kGet, "/collections/:name", Scope::kRead, C::kRead, false, handle_get_collection,
     "Describe a collection."},
    {kDelete, "/collections/:name", Scope::kAdmin, C::kAdmin, false, handle_delete_collection,
     "Delete a collection."},
    {kGet, "/collections/:name/stats", Scope::kRead, C::kRead, false, handle_collection_stats,
     "Segments and sizes of a collection."},
    {kPost, "/collections/:name/optimize", Scope::kAdmin, C::kAdmin, false, handle_optimize,
     "Seal the open rows and merge the segments."},
    {kGet, "/collections/:name/points", Scope::kRead, C::kRead, false, handle_list_points,
     "List points in ascending id order."},
    {kPost, "/collections/:name/points", Scope::kWrite, C::kWrite, true, handle_upsert,
     "Insert or replace points, all or none."},
    {kPut, "/collections/:name/points/:id", Scope::kWrite, C::kWrite, true, handle_put_point,
     "Insert or replace one point."},
    {kGet, "/collections/:name/points/:id", Scope::kRead, C::kRead, false, handle_get_point,
     "Read one point."},
    {kDelete, "/collections/:name/points/:id", Scope::kWrite, C::kWrite, false, handle_delete_point,
     "Delete one point."},
    {kPost, "/collections/:name/points/get", Scope::kRead, C::kRead, true, handle_get_points,
     "Read points by id."},
    {kPost, "/collections/:name/points/delete", Scope::kWrite, C::kWrite, true,
     handle_delete_points, "Delete points by id or filter."},
    {kPost, "/collections/:name/points/scroll", Scope::kRead, C::kRead, true, handle_scroll,
     "Read pages of points, filtered."},
    {kPost, "/collections/:name/points/count", Scope::kRead, C::kRead, true, handle_count,
     "Count points, filtered."},
    {kPost, "/collections/:name/points/payload/set", Scope::kWrite, C::kWrite, true,
     handle_payload_set, "Merge keys into the payload of points."},
    {kPost, "/collections/:name/points/payload/delete", Scope::kWrite, C::kWrite, true,
     handle_payload_delete, "Remove keys from the payload of points."},
    {kPost, "/collections/:name/search", Scope::kRead, C::kSearch, true, handle_search,
     "The nearest point."},
    {kPost, "/collections/:name/search/topk", Scope::kRead, C::kSearch, true, handle_search_topk,
     "The k nearest points."},
    {kPost, "/collections/:name/search/topk/batch", Scope::kRead, C::kSearch, true,
     handle_search_topk_batch, "The k nearest points of many queries."},
});

/// Splits off the next segment of "/a/b"; false at the end.
bool next_segment(std::string_view& path, std::string_view& segment) {
  if (path.empty() || path.front() != '/') return false;
  path.remove_prefix(1);
  const size_t slash = path.find('/');
  segment = path.substr(0, slash);
  path.remove_prefix(std::min(slash, path.size()));
  return true;
}

/// True if `path` has the shape of `pattern`; collects raw parameters.
bool matches(std::string_view pattern, std::string_view path,
             std::vector<std::string_view>& params) {
  params.clear();
  std::string_view want, got;
  while (true) {
    const bool more_wanted = next_segment(pattern, want);
    const bool more_given = next_segment(path, got);
    if (more_wanted != more_given) return false;
    if (!more_wanted) return true;
    if (want.front() == ':') {
      if (got.empty()) return false;
      params.push_back(got);
    } else if (want != got) {
      return false;
    }
  }
}

/// Literal segments win over parameters: /points/get is not the point "get". Only POST rows have
/// such literals and no POST row has a parameter in their place, so for GET, PUT and DELETE the
/// last segment is always an id, even the string id "get".
void add_method(std::string& allow, std::string_view method) {
  if (!allow.empty()) allow += ", ";
  allow += method;
}

}  // namespace

std::span<const Route> routes() {
  return kRoutes;
}

std::string_view route_class_name(RouteClass route_class) {
  switch (route_class) {
    case RouteClass::kHealth: return "health";
    case RouteClass::kRead: return "read";
    case RouteClass::kWrite: return "write";
    case RouteClass::kSearch: return "search";
    case RouteClass::kAdmin: return "admin";
  }
  return "unknown";
}

std::string_view scope_name(Scope scope) {
  switch (scope) {
    case Scope::kNone: return "none";
    case Scope::kRead: return "read";
    case Scope::kWrite: return "write";
    case Scope::kAdmin: return "admin";
  }
  return "unknown";
}

std::string_view method_name(HttpMethod method) {
  switch (method) {
    case HttpMethod::kGet: return "GET";
    case HttpMethod::kHead: return "HEAD";
    case HttpMethod::kPost: return "POST";
    case HttpMethod::kPut: return "PUT";
    case HttpMethod::kDelete: return "DELETE";
    case HttpMethod::kOther: break;
  }
  return "OTHER";
}

const std::string* Call::query(std::string_view key) const {
  for (const auto& [name, value] : request.query) {
    if (name == key) return &value;
  }
  return nullptr;
}

RouteMatch find_route(HttpMethod method, std::string_view path) {
  if (method == HttpMethod::kHead) method = HttpMethod::kGet;
  RouteMatch out;
  std::vector<std::string_view> params;
  if (path.empty() || path.front() != '/') {
    out.allow = "GET, HEAD, POST, PUT, DELETE";  // "*" and authority-form name no resource
    return out;
  }
  for (const Route& route : kRoutes) {
    if (!matches(route.pattern, path, params)) continue;
    if (route.method != method) {
      add_method(out.allow, method_name(route.method));
      if (route.method == HttpMethod::kGet) add_method(out.allow, "HEAD");
      continue;
    }
    out.route = &route;
    for (const std::string_view raw : params) {
      auto decoded = percent_decode(raw);
      if (!decoded) {
        out.problem = "the path is not percent-encoded UTF-8";
        return out;
      }
      out.params.push_back(std::move(*decoded));
    }
    return out;
  }
  // An undecodable path is malformed wherever it leads.
  if (out.allow.empty() && !percent_decode(path)) {
    out.problem = "the path is not percent-encoded UTF-8";
  }
  return out;
}

}  // namespace aionbd
