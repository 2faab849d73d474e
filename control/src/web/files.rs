//! The page's files.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A file as it is served.
struct File {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

macro_rules! files {
    ($($path:literal $media_type:literal $file:literal)+) => {
        &[$(File { path: $path, media_type: $media_type, content: include_str!(concat!("page/", $file)) },)+]
    };
}

/// All of them. Written by hand and served as they are: there is no build step.
const FILES: &[File] = files! {
    "/" "text/html; charset=utf-8" "index.html"
    "/assets/icon.svg" "image/svg+xml" "icon.svg"
    "/assets/style.css" "text/css; charset=utf-8" "style.css"
    "/assets/theme.js" "text/javascript; charset=utf-8" "theme.js"
    "/assets/main.js" "text/javascript; charset=utf-8" "main.js"
    "/assets/api.js" "text/javascript; charset=utf-8" "api.js"
    "/assets/dom.js" "text/javascript; charset=utf-8" "dom.js"
    "/assets/draw.js" "text/javascript; charset=utf-8" "draw.js"
    "/assets/explain.js" "text/javascript; charset=utf-8" "explain.js"
    "/assets/flows.js" "text/javascript; charset=utf-8" "flows.js"
    "/assets/format.js" "text/javascript; charset=utf-8" "format.js"
    "/assets/history.js" "text/javascript; charset=utf-8" "history.js"
    "/assets/model.js" "text/javascript; charset=utf-8" "model.js"
    "/assets/overview.js" "text/javascript; charset=utf-8" "overview.js"
    "/assets/rules.js" "text/javascript; charset=utf-8" "rules.js"
    "/assets/search.js" "text/javascript; charset=utf-8" "search.js"
    "/assets/top.js" "text/javascript; charset=utf-8" "top.js"
    "/assets/workers.js" "text/javascript; charset=utf-8" "workers.js"
};

/// The page and what it loads.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(async move || serve(file))))
}

fn serve(file: &File) -> Response {
    let media_type = HeaderValue::from_static(file.media_type);
    ([(header::CONTENT_TYPE, media_type)], file.content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_there_once_and_nothing_is_loaded_from_elsewhere() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/page");
        assert_eq!(
            std::fs::read_dir(directory).unwrap().count(),
            FILES.len(),
            "a file of page/ is not served"
        );
        let paths: std::collections::BTreeSet<_> = FILES.iter().map(|file| file.path).collect();
        assert_eq!(paths.len(), FILES.len());
        for File { path, content, .. } in FILES {
            let foreign = content.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !foreign.contains("http://") && !foreign.contains("https://"),
                "{path} names another site"
            );
            for loaded in content.split("/assets/").skip(1) {
                let name = loaded.split('"').next().unwrap();
                assert!(paths.contains(format!("/assets/{name}").as_str()), "{path} loads {name}");
            }
            for import in content.split(" from './").skip(1) {
                let name = import.split('\'').next().unwrap();
                assert!(paths.contains(format!("/assets/{name}").as_str()), "{path} imports {name}");
            }
        }
    }

    #[test]
    fn nothing_in_the_page_needs_what_the_policy_forbids() {
        for File { path, content, .. } in FILES {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
                "onclick=",
            ] {
                assert!(!content.contains(forbidden), "{path} has {forbidden}");
            }
        }
        let index = FILES[0].content;
        assert!(
            !index.contains("<style")
                && index.matches("<script").count()
                    == index.matches("<script src=").count()
                        + index.matches("<script type=\"module\" src=").count(),
            "inline script or style"
        );
    }
}
