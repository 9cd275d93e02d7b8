//! What can be wrong with a message, one kind for each defect.

macro_rules! defects {
    ($(#[$attribute:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// Every kind, in the order of its discriminant.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// A stable identifier in `snake_case`, used in metrics, logs and reports.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.description())
            }
        }

        impl std::error::Error for $name {}
    };
}

defects! {
    /// Why a packet is not a query that can be judged. The label is the metric label.
    Malformed {
        /// The packet is shorter than the fixed header.
        ShortHeader => "short_header",
        /// The packet is itself a response (QR=1); silence is the only answer to it.
        Response => "response",
        /// The question section is empty.
        NoQuestion => "no_question",
        /// The question section holds more than one question.
        ManyQuestions => "many_questions",
        /// The qname runs past the end of the packet.
        QnameCut => "qname_cut",
        /// The qname is longer than 255 octets.
        QnameTooLong => "qname_too_long",
        /// The qname holds a compression pointer or a reserved label type.
        QnameLabelType => "qname_label_type",
        /// The packet ends before the qtype and qclass.
        QuestionCut => "question_cut",
        /// A record runs past the end of the packet.
        RecordCut => "record_cut",
        /// A record's owner name is not well formed.
        RecordName => "record_name",
        /// A plain query carries records in its answer section.
        AnswerInQuery => "answer_in_query",
        /// There is more than one OPT record (RFC 6891 section 6.1.1).
        ManyOpts => "many_opts",
        /// The OPT record's owner is not the root.
        OptNotAtRoot => "opt_not_at_root",
        /// An OPT record stands outside the additional section.
        OptMisplaced => "opt_misplaced",
        /// An EDNS option runs past the end of the OPT record.
        OptionCut => "option_cut",
        /// A TSIG or SIG(0) record is not the last record (RFC 8945 section 5.1).
        SignatureNotLast => "signature_not_last",
        /// Octets follow the last record.
        TrailingOctets => "trailing_octets",
    }
}

defects! {
    /// Why a packet from an upstream is not a response that can be passed on. The label is the
    /// metric label.
    MalformedResponse {
        /// The packet is shorter than the fixed header.
        ShortHeader => "short_header",
        /// The packet is a query (QR=0).
        Query => "query",
        /// The question section is empty though the rcode says that the query was understood.
        NoQuestion => "no_question",
        /// The question section holds more than one question.
        ManyQuestions => "many_questions",
        /// The qname is cut, too long, or compressed.
        Qname => "qname",
        /// The packet ends before the qtype and qclass.
        QuestionCut => "question_cut",
        /// A record runs past the end of the packet though TC is not set.
        RecordCut => "record_cut",
        /// A record's owner name is not well formed.
        RecordName => "record_name",
        /// The packet is longer than a DNS message can be.
        TooLong => "too_long",
    }
}

impl Malformed {
    /// Whether the message has more than one reading because of its OPT records; such a query is
    /// answered FORMERR (RFC 6891 section 6.1.1).
    #[must_use]
    pub const fn is_ambiguous_edns(self) -> bool {
        matches!(
            self,
            Self::ManyOpts | Self::OptNotAtRoot | Self::OptMisplaced
        )
    }
}
