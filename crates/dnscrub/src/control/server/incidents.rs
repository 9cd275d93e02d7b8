//! Incidents, what is going on right now, and levels that are set by hand, over the API.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use dnscrub_detection::{Incident, Point};

use super::{Answer, Refusal, asked, bad_request, beside, body, failed};
use crate::control::api::{
    CloseRequest, Failure, IncidentRow, IncidentsQuery, LevelOrders, LiveQuery, NoteRequest,
    ZoneQuery,
};
use crate::incidents::owner::NoteError;
use crate::live::Live;
use crate::orders::ByHand;
use crate::response::{LevelError, LevelRequest};
use crate::supervisor::Supervisor;
use crate::unix_time;

/// Incidents of a page when nothing else is asked for.
const USUAL_PAGE: usize = 100;

/// The paths of this part of the API.
pub(super) fn routes() -> Router<Arc<Supervisor>> {
    let level = get(orders).post(set_level).delete(release);
    Router::new()
        .route("/v1/incidents", get(list))
        .route("/v1/incidents/{number}", get(show))
        .route("/v1/incidents/{number}/note", post(note))
        .route("/v1/incidents/{number}/close", post(close))
        .route("/v1/live", get(live))
        .route("/v1/level", level)
}

async fn list(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Answer<Vec<IncidentRow>> {
    let query: IncidentsQuery = asked(&uri)?;
    let since = query.since.unwrap_or(0.0);
    let all = supervisor.shared.incidents.all();
    let shown = all
        .iter()
        .filter(|it| !query.open || it.is_open())
        // one that ended later than that was going on then
        .filter(|it| it.closed.is_none_or(|closed| closed >= since))
        .take(query.limit.unwrap_or(USUAL_PAGE));
    Ok(Json(shown.map(|it| IncidentRow::of(it)).collect()))
}

/// The number of an incident in a path.
fn number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        bad_request(Failure::new(format!(
            "found \"{}\", expected the number of an incident",
            text.escape_debug()
        )))
    })
}

fn unknown(failure: &NoteError) -> Refusal {
    let status = match failure {
        NoteError::Unknown(_) => StatusCode::NOT_FOUND,
        NoteError::Length(_) => StatusCode::BAD_REQUEST,
        NoteError::Over(_) => StatusCode::CONFLICT,
        NoteError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let told = Failure::new(failure.to_string());
    let told = match failure {
        NoteError::Unknown(_) => told.with_hint("`dnscrub incidents list` shows those there are"),
        NoteError::Length(_) | NoteError::Over(_) | NoteError::Unreadable(_) => told,
    };
    failed(status, told)
}

async fn show(
    State(supervisor): State<Arc<Supervisor>>,
    Path(text): Path<String>,
) -> Answer<Incident> {
    let number = number(&text)?;
    // it may have to be read from the disk
    let incident = beside(move || supervisor.shared.incidents.get(number)).await?;
    incident
        .map(|incident| Json((*incident).clone()))
        .ok_or_else(|| unknown(&NoteError::Unknown(number)))
}

async fn note(
    State(supervisor): State<Arc<Supervisor>>,
    Path(text): Path<String>,
    bytes: Bytes,
) -> Answer<Incident> {
    let number = number(&text)?;
    let NoteRequest { text } = body(&bytes)?;
    let noted = beside(move || supervisor.incidents.note(number, &text, unix_time::now())).await?;
    noted
        .map(|it| Json((*it).clone()))
        .map_err(|failure| unknown(&failure))
}

async fn close(
    State(supervisor): State<Arc<Supervisor>>,
    Path(text): Path<String>,
    bytes: Bytes,
) -> Answer<Incident> {
    let number = number(&text)?;
    let CloseRequest { text } = if bytes.is_empty() {
        CloseRequest::default()
    } else {
        body(&bytes)?
    };
    let closed = beside(move || {
        if let Some(text) = text {
            supervisor.incidents.note(number, &text, unix_time::now())?;
        }
        supervisor.incidents.close(number, unix_time::now())
    })
    .await?;
    closed
        .map(|it| Json((*it).clone()))
        .map_err(|failure| unknown(&failure))
}

async fn live(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Answer<Live> {
    let LiveQuery { since } = asked(&uri)?;
    let live = supervisor.shared.live.load();
    let newer = |point: &&Point| since.is_none_or(|since| point.at > since);
    Ok(Json(Live {
        overview: live.overview.clone(),
        points: live.points.iter().filter(newer).copied().collect(),
    }))
}

async fn orders(State(supervisor): State<Arc<Supervisor>>) -> Json<LevelOrders> {
    let orders = supervisor.shared.orders.load();
    Json(LevelOrders {
        by_hand: orders.by_hand.clone(),
        by_incident: orders.raised.clone(),
    })
}

async fn set_level(State(supervisor): State<Arc<Supervisor>>, bytes: Bytes) -> Answer<ByHand> {
    let request: LevelRequest = body(&bytes)?;
    let set = beside(move || supervisor.response.set_level(&request, unix_time::now())).await?;
    set.map(Json).map_err(refused)
}

async fn release(State(supervisor): State<Arc<Supervisor>>, uri: Uri) -> Answer<ByHand> {
    let ZoneQuery { zone } = asked(&uri)?;
    let released = beside(move || supervisor.response.release(zone.as_deref())).await?;
    released.map(Json).map_err(refused)
}

fn refused(failure: LevelError) -> Refusal {
    match failure {
        LevelError::Wrong(error, hint) => bad_request(Failure {
            hint,
            ..Failure::new(error)
        }),
        LevelError::Full => failed(
            StatusCode::CONFLICT,
            Failure::new("as many levels are set by hand as there may be")
                .with_hint("release some with `dnscrub level release`, or set one for the whole"),
        ),
        LevelError::NotSet(scope) => failed(
            StatusCode::NOT_FOUND,
            Failure::new(format!("no level is set by hand for {scope}"))
                .with_hint("`dnscrub level` shows those that are"),
        ),
        LevelError::Unsaved(failure) => failed(
            StatusCode::INSUFFICIENT_STORAGE,
            Failure::new(format!(
                "the change is in force, but it is not saved: {failure}"
            ))
            .with_hint("a restart would lose it; saving is tried again until it succeeds"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::{Value, json};

    use crate::control::client::{Client, ClientError};
    use crate::control::server::start;
    use crate::control::testing::{PLAIN, program};
    use crate::incidents::testing::incident;

    async fn ask(
        client: &Client,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, ClientError> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        client.json(method, path, body).await
    }

    async fn get(client: &Client, path: &str) -> Value {
        ask(client, Method::GET, path, Value::Null).await.unwrap()
    }

    #[tokio::test]
    async fn incidents_are_listed_shown_noted_and_closed() {
        let program = program(PLAIN);
        let _server = start(&program.supervisor).await.unwrap();
        let client = Client::new(program.supervisor.startup.control.socket.clone());
        assert_eq!(get(&client, "/v1/incidents").await, json!([]));
        let known = &program.supervisor.shared.incidents;
        let mut over = incident(3);
        over.closed = Some(1_700_000_100.0);
        for incident in [over, incident(4)] {
            known.edit(|known| known.insert(incident.number, std::sync::Arc::new(incident)));
        }
        let rows = get(&client, "/v1/incidents").await;
        assert_eq!(
            (&rows[0]["number"], &rows[1]["number"]),
            (&json!(4), &json!(3))
        );
        assert_eq!(rows[0]["kind"], "direct-flood");
        assert_eq!(rows[0]["zones"], json!(["example.com"]));
        let rows = get(&client, "/v1/incidents?open=true").await;
        assert_eq!(rows.as_array().unwrap().len(), 1);
        let rows = get(&client, "/v1/incidents?since=1700000200").await;
        assert_eq!(rows.as_array().unwrap().len(), 1, "3 was over by then");
        let whole = get(&client, "/v1/incidents/3").await;
        assert_eq!(whole["timeline"][0]["what"], "opened");
        let body = json!({"text": "called the customer"});
        let noted = ask(&client, Method::POST, "/v1/incidents/4/note", body).await;
        assert_eq!(noted.unwrap()["timeline"][1]["text"], "called the customer");
        let closed = ask(
            &client,
            Method::POST,
            "/v1/incidents/4/close",
            json!({"text": "false alarm"}),
        )
        .await;
        assert!(closed.unwrap()["closed"].is_number());
        for (path, status) in [
            ("/v1/incidents/4/close", 409),
            ("/v1/incidents/9/close", 404),
            ("/v1/incidents/x/close", 400),
        ] {
            let Err(ClientError::Refused(refused)) =
                ask(&client, Method::POST, path, json!({})).await
            else {
                panic!("{path}")
            };
            assert_eq!(refused.status, status, "{path}");
        }
        let Err(ClientError::Refused(refused)) = ask(
            &client,
            Method::POST,
            "/v1/incidents/4/note",
            json!({"text": " "}),
        )
        .await
        else {
            panic!("an empty remark")
        };
        assert_eq!(refused.status, 400);
        assert!(get(&client, "/v1/live").await["points"].is_array());
    }

    #[tokio::test]
    async fn levels_are_set_shown_and_released() {
        let program = program(PLAIN);
        let _server = start(&program.supervisor).await.unwrap();
        let client = Client::new(program.supervisor.startup.control.socket.clone());
        let post = async |body: Value| ask(&client, Method::POST, "/v1/level", body).await;
        let delete = async |path: &str| ask(&client, Method::DELETE, path, Value::Null).await;
        let set = post(
            json!({"level": "attack", "zone": "Example.ORG", "for": "30m", "reason": "drill"}),
        )
        .await
        .unwrap();
        assert_eq!(
            (&set["zone"], &set["level"]),
            (&json!("example.org"), &json!("attack"))
        );
        let lasts = set["until"].as_f64().unwrap() - set["since"].as_f64().unwrap();
        assert!((lasts - 1800.0).abs() < 1.0, "{lasts}");
        post(json!({"level": "calm"})).await.unwrap();
        let orders = get(&client, "/v1/level").await;
        assert_eq!(orders["by_hand"].as_array().unwrap().len(), 2);
        let levels = get(&client, "/v1/levels").await;
        assert_eq!(
            (&levels[0]["level"], &levels[0]["origin"]),
            (&json!("calm"), &json!("operator"))
        );
        assert_eq!(
            (&levels[1]["scope"], &levels[1]["level"]),
            (&json!("example.org"), &json!("attack"))
        );
        let status = get(&client, "/v1/status").await;
        assert_eq!(status["levels_by_hand"].as_array().unwrap().len(), 2);
        for (body, said) in [
            (json!({"level": "war"}), "expected attack, alert or calm"),
            (json!({"level": "calm", "for": "100d"}), "30 days at most"),
            (
                json!({"level": "calm", "zone": "a..b"}),
                "expected a domain name",
            ),
            (
                json!({"level": "calm", "zone": "www.example.org"}),
                "www.example.org is no zone",
            ),
            (
                json!({"level": "calm", "reason": "x".repeat(256)}),
                "a reason of 256 octets",
            ),
        ] {
            let Err(ClientError::Refused(refused)) = post(body).await else {
                panic!("{said}")
            };
            assert_eq!(refused.status, 400);
            assert!(
                refused.failure.error.contains(said),
                "{}",
                refused.failure.error
            );
        }
        assert_eq!(
            delete("/v1/level?zone=example.org").await.unwrap()["reason"],
            "drill"
        );
        let Err(ClientError::Refused(refused)) = delete("/v1/level?zone=example.org").await else {
            panic!("it was released")
        };
        assert_eq!(refused.status, 404);
        delete("/v1/level").await.unwrap();
        assert_eq!(get(&client, "/v1/level").await["by_hand"], json!([]));
    }
}
