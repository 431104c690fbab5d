// Handlers of health, version, metrics, distance and backup. Thin: decode, one public call, encode.
#include <fmt/format.h>

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

/// What a client is told of a failed backup: what it can do something about. Paths and file names
/// are for the log.
Status public_backup_error(const Status& error) {
  switch (error.code()) {
    case Code::kCorruption:
    case Code::kNotFound:
      return unavailable(
          "something stored is damaged, which is not backed up: the server's log "
          "has the details");
    case Code::kInUse:
      return failed_precondition("another process makes a backup in the same directory");
    default: return error;
  }
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

Status handle_backup(Call& call) {
  const std::string& dir = call.server.settings().backup_dir;
  if (dir.empty()) {
    return failed_precondition("this server has no directory of backups: set AIONBD_BACKUP_DIR");
  }
  ASSIGN_OR_RETURN(Database * database, call.server.require_database());
  BackupOptions options;
  options.keep = call.server.settings().backup_keep;
  const auto report = database->backup(
      dir, options, [&call](uint64_t, uint64_t) { return !call.server.stopping(); });
  if (!report.has_value()) {
    call.server.logger().error("server: backup failed error=\"" + report.error().to_string() +
                               "\"");
    return public_backup_error(report.error());
  }
  call.server.logger().info(fmt::format(
      "server: backup made number={} last_lsn={} files={} files_shared={} written_bytes={} "
      "removed={} removed_bytes={}",
      report->number, report->last_lsn, report->files, report->files_shared, report->written_bytes,
      report->removed, report->removed_bytes));
  call.response.body = encode_backup(*report);
  return {};
}

}  // namespace aionbd
