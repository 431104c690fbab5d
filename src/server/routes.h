// The table of endpoints, and how a request finds its row.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/status.h"
#include "server/http.h"

namespace aionbd {

class ServerContext;

/// What a caller must be allowed to do.
enum class Scope : uint8_t { kNone, kRead, kWrite, kAdmin };

/// What kind of work a route is: the label of its latency histogram. kHealth alone never blocks
/// and never waits for a work slot.
enum class RouteClass : uint8_t { kHealth, kRead, kWrite, kSearch, kAdmin };
inline constexpr size_t kRouteClassesCount = 5;
std::string_view route_class_name(RouteClass route_class);
std::string_view scope_name(Scope scope);
std::string_view method_name(HttpMethod method);

/// One request on its way through a handler.
struct Call {
  ServerContext& server;
  const HttpRequest& request;
  HttpResponse& response;
  /// Set by a handler whose write has its place in the log: what it does when that is durable.
  std::unique_ptr<UnfinishedAnswer>& rest;

  std::string_view param(size_t i) const { return request.path_params[i]; }
  /// Value of a query key, or null.
  const std::string* query(std::string_view key) const;
};

/// Decodes, makes one public call, encodes into `response.body` (or leaves that to `rest`). A
/// returned error becomes the answer.
using Handler = Status (*)(Call& call);

struct Route {
  HttpMethod method;
  std::string_view pattern;  // segments that begin with ':' are parameters
  Scope scope;
  RouteClass route_class;
  bool json_body;  // the body must be application/json
  Handler handler;
  std::string_view summary;
};

std::span<const Route> routes();

struct RouteMatch {
  const Route* route = nullptr;     // null: no such path, or no such method on it
  std::vector<std::string> params;  // percent-decoded, in pattern order
  std::string allow;                // methods of the path, when only the method is wrong
  std::string problem;              // the path does not decode
};

/// HEAD finds the GET row. `path` is raw; each segment is decoded once and never normalised.
RouteMatch find_route(HttpMethod method, std::string_view path);

}  // namespace aionbd
