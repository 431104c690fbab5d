// Handlers of health, version, metrics and distance. Thin: decode, one public call, encode.
#include "aionbd/distance.h"
#include "server/context.h"
#include "server/exporter.h"
#include "server/handlers.h"

namespace aionbd {
namespace {

constexpr std::string_view kPrometheusType = "text/plain; version=0.0.4; charset=utf-8";

/// True if an Accept field asks for the Prometheus text rather than JSON. Scrapers list several
/// types; a browser's */* alone stays JSON.
bool wants_prometheus(const std::string_view* accept) {
  if (accept == nullptr || accept->find("application/json") != std::string_view::npos) return false;
  return accept->find("text/plain") != std::string_view::npos ||
         accept->find("application/openmetrics-text") != std::string_view::npos;
}

}  // namespace

Status handle_live(Call& call) {
  call.response.body = encode_live(call.server.uptime_ms());
  return {};
}

Status handle_ready(Call& call) {
  ASSIGN_OR_RETURN(const Database* database, call.server.require_database());
  const Health health = database->health();
  if (!health.storage_available) {
    return unavailable("storage failed: writes are refused until the server is restarted");
  }
  call.response.body = encode_ready(call.server.uptime_ms(), true, true, health.quarantined);
  return {};
}

Status handle_version(Call& call) {
  call.response.body = encode_version(version(), Database::simd_target());
  return {};
}

Status handle_metrics(Call& call) {
  if (wants_prometheus(call.request.head.find("accept"))) return handle_metrics_prometheus(call);
  call.response.body = metrics_json(collect_metrics(call.server));
  return {};
}

Status handle_metrics_prometheus(Call& call) {
  call.response.content_type = kPrometheusType;
  call.response.body = metrics_prometheus(collect_metrics(call.server));
  return {};
}

Status handle_distance(Call& call) {
  ASSIGN_OR_RETURN(const DistanceBody body,
                   decode_distance(call.server.reader(), call.request.body, call.server.limits()));
  ASSIGN_OR_RETURN(const float value, score_between(body.left, body.right, body.metric));
  call.response.body = encode_distance(body.metric, value);
  return {};
}

}  // namespace aionbd
